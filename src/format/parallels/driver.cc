#include "base/arith.h"
#include "block/open_format.h"
#include "format/parallels/node.h"
#include "format/parallels/parallels.h"

namespace cairn {

using namespace parallels;

namespace {

const OptionSchema kOpenOptions = {
    {"prealloc-size", OptionType::kSize, "128M", "Preallocation size on image expansion"},
    {"prealloc-mode", OptionType::kString, "falloc",
     "Preallocation mode on image expansion (allowed values: falloc, truncate)"},
};
const OptionSchema kCreateOptions = {
    {"cluster_size", OptionType::kSize, "1048576", "Parallels image cluster size"},
    {"size", OptionType::kSize, "", "Virtual disk size"},
};

uint64_t cluster_size(const Options& options) {
  return options.size("cluster_size").value_or(kDefaultClusterBytes);
}

class ParallelsDriver : public Driver {
 public:
  std::string_view name() const override { return "parallels"; }
  std::string_view title() const override { return "disks of Parallels and Virtuozzo"; }
  int probe(const ProbeInput& input) const override { return is_image(input.head) ? 100 : 0; }
  Abilities abilities() const override { return {.create = true, .check = true, .repair = true}; }
  const OptionSchema& open_options() const override { return kOpenOptions; }
  const OptionSchema& create_options() const override { return kCreateOptions; }

  std::vector<std::pair<std::string, std::string>> announce(const Options& options,
                                                            uint64_t size) const override {
    return {{"size", std::to_string(size)},
            {"cluster_size", std::to_string(cluster_size(options))}};
  }

  Task<NodePtr> open(OpenContext& request) const override {
    return open_format<ParallelsNode>(request, *this);
  }

  Task<void> create(Context&, CreateRequest request) const override {
    const Header header = Header::fresh(request.size, cluster_size(request.options));
    const uint64_t end = header.data_off * kSector;
    co_await request.file->resize({.length = end, .exact = false});
    std::vector<std::byte> sector(kSector);
    header.encode(sector);
    co_await request.file->write(0, sector);
  }
};

}  // namespace

std::unique_ptr<Driver> make_parallels_driver() { return std::make_unique<ParallelsDriver>(); }

}  // namespace cairn
