#include <algorithm>

#include "base/arith.h"
#include "block/context.h"
#include "block/open_format.h"
#include "format/vpc/node.h"
#include "format/vpc/vpc.h"

namespace cairn {

using namespace vpc;

namespace {

const OptionSchema kOpenOptions = {
    {"force_size_calc", OptionType::kString, "",
     "which size counts: current_size or chs; by the creator otherwise"},
};
const OptionSchema kCreateOptions = {
    {"force_size", OptionType::kBool, "",
     "Force disk size calculation to use the actual size specified, rather than using the nearest "
     "CHS-based calculation"},
    {"size", OptionType::kSize, "", "Virtual disk size"},
    {"subformat", OptionType::kString, "",
     "Type of virtual hard disk format. Supported formats are {dynamic (default) | fixed} "},
};

constexpr uint64_t kTableOffset = kFooterBytes + kHeaderBytes;

struct Plan {
  bool fixed = false;
  bool exact = false;
  uint64_t bytes = 0;
  Geometry geometry;
};

Plan plan(const Options& options, uint64_t size) {
  Plan result;
  const std::string kind = options.string("subformat").value_or("dynamic");
  if (kind != "dynamic" && kind != "fixed")
    throw Error(ErrorKind::kInvalid, "Parameter 'subformat' does not accept value '" + kind + "'");
  result.fixed = kind == "fixed";
  result.exact = options.boolean("force_size").value_or(false);
  const uint64_t sectors = div_ceil(size, kSector);
  result.geometry = result.exact ? kLargest : geometry_for(sectors);
  const bool by_size = result.geometry == kLargest;
  result.bytes = (by_size ? sectors : result.geometry.total()) * kSector;
  if (result.bytes / kSector > kMaxSectors)
    throw Error(ErrorKind::kTooLarge, "The image size is too large for file format 'vpc'");
  if (result.fixed && size == 0)
    throw Error(ErrorKind::kInvalid, "A fixed VHD image cannot be empty");
  return result;
}

// Only a footer that fits the file to the byte makes it one: any other may be a guest's data.
bool fixed_by_tail(const ProbeInput& input) {
  if (!Footer::has_cookie(input.tail)) return false;
  try {
    const Footer footer = Footer::decode(input.tail);
    return footer.kind == Kind::kFixed && footer.current_size == input.length - kFooterBytes;
  } catch (const Error&) {
    return false;
  }
}

class VpcDriver : public Driver {
 public:
  std::string_view name() const override { return "vpc"; }
  std::string_view title() const override { return "VHD: Virtual PC, Hyper-V, Azure"; }
  int probe(const ProbeInput& input) const override {
    if (Footer::has_cookie(input.head)) return 100;
    return fixed_by_tail(input) ? 90 : 0;
  }
  Abilities abilities() const override {
    return {.create = true, .check = true, .repair = true, .resize = true};
  }
  const OptionSchema& open_options() const override { return kOpenOptions; }
  const OptionSchema& create_options() const override { return kCreateOptions; }

  std::vector<std::pair<std::string, std::string>> announce(const Options& options,
                                                            uint64_t size) const override {
    std::vector<std::pair<std::string, std::string>> result{{"size", std::to_string(size)}};
    for (const char* key : {"subformat", "force_size"})
      if (const auto value = options.string(key)) result.emplace_back(key, *value);
    return result;
  }

  Task<NodePtr> open(OpenContext& request) const override {
    return open_format<VpcNode>(request, *this);
  }

  Task<void> create(Context&, CreateRequest request) const override {
    const Plan what = plan(request.options, request.size);
    Node& file = *request.file;
    const Footer footer = Footer::fresh(what.fixed ? Kind::kFixed : Kind::kDynamic, what.bytes,
                                        what.geometry, what.exact);
    std::vector<std::byte> sector(kFooterBytes);
    footer.encode(sector);
    if (what.fixed) {
      co_await file.resize({.length = what.bytes + kFooterBytes, .exact = false});
      co_await file.write(what.bytes, sector);
      co_return;
    }
    DynamicHeader header;
    header.table_offset = kTableOffset;
    header.entries = static_cast<uint32_t>(div_ceil(what.bytes, kDefaultBlockBytes));
    std::vector<std::byte> all(kTableOffset + header.table_bytes() + kFooterBytes, std::byte{0xff});
    footer.encode(all);
    header.encode(MutableByteSpan(all).subspan(kFooterBytes));
    footer.encode(MutableByteSpan(all).last(kFooterBytes));
    co_await file.write(0, all);
  }
};

}  // namespace

std::unique_ptr<Driver> make_vpc_driver() { return std::make_unique<VpcDriver>(); }

}  // namespace cairn
