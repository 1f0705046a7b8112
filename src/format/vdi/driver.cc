#include "block/driver.h"

#include "block/open_format.h"
#include "format/vdi/node.h"

namespace cairn {

using namespace vdi;

namespace {

const OptionSchema kCreateOptions = {
    {"size", OptionType::kSize, "", "Virtual disk size"},
    {"static", OptionType::kBool, "off", "VDI static (pre-allocated) image"},
};

const std::vector<Sample> kSamples = {
    {.name = "dynamic", .crash = Sample::Crash::kRepaired, .exchanged = true},
    {.name = "fixed", .options = "static=on", .exchanged = true},
};

class VdiDriver : public FormatDriver<VdiNode> {
 public:
  VdiDriver()
      : FormatDriver({.name = "vdi",
                      .title = "VirtualBox disk images",
                      .endings = {"vdi"},
                      .page = "formats/vdi.md",
                      .abilities = {.create = true, .resize = true, .repair = true},
                      .extensions = {.repair = true, .resize = true, .facts = true},
                      .create_options = kCreateOptions,
                      .samples = kSamples}) {}
  ProbeResult probe(const ProbeInput& input) const override {
    return {.score =
                input.head.size() >= kHeaderBytes && load_le<uint32_t>(input.head, 64) == kMagic
                    ? 100
                    : 0};
  }

  Task<void> create(Context&, CreateRequest request) const override {
    const bool fixed = request.options.boolean("static").value_or(false);
    const Header header = Header::fresh(request.size, fixed);
    std::vector<std::byte> sector(kHeaderBytes);
    header.encode(sector);
    co_await request.file->write(0, sector);
    // The map in pieces: it may be large, and what is after its last entry is zero.
    constexpr uint64_t kPiece = 256 << 10;
    std::vector<std::byte> piece;
    for (uint64_t block = 0; block < header.blocks; block += kPiece) {
      const uint64_t count = std::min<uint64_t>(kPiece, header.blocks - block);
      piece.assign(count * 4, std::byte{0xff});
      for (uint64_t i = 0; fixed && i < count; ++i)
        store_le<uint32_t>(piece, i * 4, static_cast<uint32_t>(block + i));
      co_await request.file->write(header.map_offset + block * 4, piece);
    }
    const uint64_t end =
        header.data_offset + (fixed ? uint64_t{header.blocks} * kBlockBytes : uint64_t{0});
    if (request.file->length() < end) {
      try {
        co_await request.file->resize({.length = end, .exact = false});
      } catch (Error& error) {
        throw error.context("Failed to statically allocate file");
      }
    }
  }
};

}  // namespace

std::unique_ptr<Driver> make_vdi_driver() { return std::make_unique<VdiDriver>(); }

}  // namespace cairn
