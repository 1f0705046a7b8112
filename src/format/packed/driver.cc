#include "block/driver.h"

#include "async/finally.h"
#include "block/context.h"
#include "format/packed/blocks_node.h"
#include "format/packed/node.h"

namespace cairn {
namespace {

std::string_view title_of(Packing packing) {
  switch (packing) {
    case Packing::kGzip:
      return "a disk or an image compressed with gzip";
    case Packing::kXz:
      return "a disk or an image compressed with xz";
    case Packing::kBzip2:
      return "a disk or an image compressed with bzip2";
    case Packing::kZstd:
      break;
  }
  return "a disk or an image compressed with zstd";
}

class PackedDriver : public Driver {
 public:
  explicit PackedDriver(Packing packing)
      : Driver({.name = to_string(packing),
                .title = title_of(packing),
                .page = "formats/packed.md",
                .abilities = {.read_only = true}}),
        packing_(packing) {}
  ProbeResult probe(const ProbeInput& input) const override {
    return {.score = is_packed(packing_, input.head) ? 90 : 0, .extension = true};
  }

  // Gives the node of the image inside, whose file is the packed one.
  Task<NodePtr> open(OpenContext& request) const override {
    NodePtr file = co_await request.open_file();
    NodePtr bytes = file;
    NodePtr result = co_await on_failure(
        [&]() -> Task<NodePtr> {
          if (request.flags.writable)
            throw Error(ErrorKind::kDenied, "'" + file->filename() + "' is compressed with " +
                                                std::string(name()) + " and can only be read")
                .hint("Unpack it first, or convert it to a new image.");
          bytes = co_await content_of(request.context, std::move(file));
          NodePtr image = co_await request.open_over(bytes, "");
          co_return image;
        },
        [&] { return bytes->close(); });
    co_return result;
  }

 private:
  // What FILE contains, read in place where it has an index of several blocks, and no more than may
  // be unpacked; else unpacked.
  Task<NodePtr> content_of(Context& context, NodePtr file) const {
    std::vector<PackedBlock> blocks = co_await packed::find_blocks(file, packing_);
    const uint64_t most = context.unpacking.most_bytes.value_or(UINT64_MAX);
    if (blocks.size() > 1 && blocks.back().offset + blocks.back().bytes <= most)
      co_return std::make_shared<packed::BlocksNode>(context, *this, std::move(file), packing_,
                                                     std::move(blocks));
    auto node = std::make_shared<packed::PackedNode>(context, *this, std::move(file), packing_);
    co_await node->unpack();
    co_return node;
  }

  Packing packing_;
};

}  // namespace

std::unique_ptr<Driver> make_gzip_driver() {
  return std::make_unique<PackedDriver>(Packing::kGzip);
}
std::unique_ptr<Driver> make_xz_driver() { return std::make_unique<PackedDriver>(Packing::kXz); }
std::unique_ptr<Driver> make_bzip2_driver() {
  return std::make_unique<PackedDriver>(Packing::kBzip2);
}
std::unique_ptr<Driver> make_zstd_driver() {
  return std::make_unique<PackedDriver>(Packing::kZstd);
}

}  // namespace cairn
