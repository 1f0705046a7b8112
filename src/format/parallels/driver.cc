#include "block/driver.h"

#include <algorithm>

#include "async/finally.h"
#include "block/open_format.h"
#include "format/parallels/bundle_node.h"
#include "format/parallels/node.h"

namespace cairn {

using namespace parallels;

namespace {

const OptionSchema kOpenOptions = {
    {"prealloc-size", OptionType::kSize, "128M", "Preallocation size on image expansion"},
    {"prealloc-mode", OptionType::kString, "falloc",
     "Preallocation mode on image expansion (allowed values: falloc, truncate)"},
    {"snapshot", OptionType::kString, "", "GUID of the state of a bundle to show"},
};
const OptionSchema kCreateOptions = {
    {"size", OptionType::kSize, "", "Virtual disk size"},
    {"cluster_size", OptionType::kSize, "1048576", "Parallels image cluster size"},
};

uint64_t cluster_size(const Options& options) {
  return options.size("cluster_size").value_or(kDefaultClusterBytes);
}

constexpr size_t kProbeBytes = 2048;

bool is_descriptor(ByteSpan head) {
  return looks_like_descriptor({reinterpret_cast<const char*>(head.data()), head.size()});
}

// A disk is one image or a bundle of several.
CapabilityIds capabilities() {
  CapabilityIds all = ParallelsNode::Capabilities::ids();
  for (const CapabilityId id : ParallelsBundle::Capabilities::ids())
    if (std::find(all.begin(), all.end(), id) == all.end()) all.push_back(id);
  return all;
}

const std::vector<Sample> kSamples = {
    {.name = "clusters_512", .options = "cluster_size=512", .open_options = "prealloc-size=64k"},
    {.name = "clusters_4k",
     .options = "cluster_size=4k",
     .open_options = "prealloc-size=64k",
     .crash = Sample::Crash::kRepaired},
    {.name = "clusters_31k", .options = "cluster_size=31k", .open_options = "prealloc-size=64k"},
    {.name = "clusters_64k", .options = "cluster_size=64k", .open_options = "prealloc-size=64k"},
    {.name = "clusters_1M", .options = "cluster_size=1M", .open_options = "prealloc-size=64k"},
    {.name = "truncate",
     .options = "cluster_size=4k",
     .open_options = "prealloc-size=64k,prealloc-mode=truncate"},
};

class ParallelsDriver : public Driver {
 public:
  ParallelsDriver()
      : Driver({.name = "parallels",
                .title = "disks of Parallels and Virtuozzo",
                .endings = {"hdd", "hds"},
                .page = "formats/parallels.md",
                .folder_member = kDescriptorName,
                .abilities = {.create = true, .repair = true},
                .capabilities = capabilities(),
                .open_options = kOpenOptions,
                .create_options = kCreateOptions,
                .samples = kSamples}) {}
  ProbeResult probe(const ProbeInput& input) const override {
    if (is_image(input.head)) return {.score = 100};
    // Others know no bundles, and take their descriptors for raw disks.
    return {.score = is_descriptor(input.head) ? 100 : 0, .extension = true};
  }

  Task<NodePtr> open(OpenContext& request) const override {
    NodePtr file = co_await request.open_file();
    std::vector<std::byte> head(kProbeBytes);
    co_await on_failure(
        [&]() -> Task<void> {
          co_await file->read(
              0, MutableByteSpan(head).first(std::min<uint64_t>(head.size(), file->length())));
        },
        [&] { return file->close(); });
    request.probed_file = std::move(file);
    if (is_descriptor(head)) {
      NodePtr bundle = co_await open_format<ParallelsBundle>(request, *this);
      co_return bundle;
    }
    NodePtr node = co_await open_format<ParallelsNode>(request, *this);
    co_return node;
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
