#include "block/driver.h"

#include <algorithm>

#include "base/arith.h"
#include "block/context.h"
#include "block/open_format.h"
#include "block/work_report.h"
#include "format/vmdk/create.h"
#include "format/vmdk/node.h"

namespace cairn {

using namespace vmdk;

namespace {

const OptionSchema kCreateOptions = {
    {"adapter_type", OptionType::kString, "",
     "Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX"},
    {"backing_file", OptionType::kString, "", "File name of a base image"},
    {"backing_fmt", OptionType::kString, "", "Must be 'vmdk' if present"},
    {"compat6", OptionType::kBool, "off", "VMDK version 6 image"},
    {"hwversion", OptionType::kString, "undefined", "VMDK hardware version"},
    {"size", OptionType::kSize, "", "Virtual disk size"},
    {"subformat", OptionType::kString, "",
     "VMDK flat extent format, can be one of {monolithicSparse (default) | monolithicFlat | "
     "twoGbMaxExtentSparse | twoGbMaxExtentFlat | streamOptimized} "},
    {"toolsversion", OptionType::kString, "", "VMware guest tools version"},
    {"zeroed_grain", OptionType::kBool, "",
     "Enable efficient zero writes using the zeroed-grain GTE feature"},
};

constexpr std::string_view kAnnounced[] = {"size",         "adapter_type", "backing_file",
                                           "backing_fmt",  "compat6",      "hwversion",
                                           "toolsversion", "subformat",    "zeroed_grain"};

class VmdkDriver : public Driver {
 public:
  VmdkDriver()
      : Driver({.name = "vmdk",
                .title = "VMware disks, of one file or many",
                .abilities = {.create = true, .repair = true},
                .capabilities = VmdkNode::Capabilities::ids(),
                .repair_beyond_qemu = true,
                .create_options = kCreateOptions}) {}
  int probe(const ProbeInput& input) const override {
    if (is_sparse(input.head) || is_cowd(input.head)) return 100;
    const size_t bytes = std::min<uint64_t>(input.head.size(), input.length);
    const std::string_view text(reinterpret_cast<const char*>(input.head.data()), bytes);
    return looks_like_descriptor(text) ? 100 : 0;
  }

  std::vector<std::pair<std::string, std::string>> announce(const Options& options,
                                                            uint64_t size) const override {
    std::vector<std::pair<std::string, std::string>> result;
    for (const std::string_view key : kAnnounced) {
      const auto spec = std::find_if(kCreateOptions.begin(), kCreateOptions.end(),
                                     [&](const OptionSpec& one) { return one.name == key; });
      if (key == "size")
        result.emplace_back(key, std::to_string(size));
      else if (options.has(key) && spec->type == OptionType::kBool)
        result.emplace_back(key, options.boolean(key).value_or(false) ? "on" : "off");
      else if (options.has(key))
        result.emplace_back(key, options.string(key).value_or(""));
      else if (!spec->default_text.empty())
        result.emplace_back(key, spec->default_text);
    }
    return result;
  }

  Task<NodePtr> open(OpenContext& request) const override {
    return open_format<VmdkNode>(request, *this);
  }

  Task<void> create(Context& context, CreateRequest request) const override {
    co_await create_disk(context, std::move(request));
  }

  Task<MeasureResult> measure(Context& context, Options options, uint64_t size,
                              NodePtr source) const override {
    if (!context.beyond_qemu) {
      const MeasureResult none = co_await Driver::measure(context, options, size, source);
      co_return none;
    }
    check_create_options(options);
    const std::string subformat = options.string("subformat").value_or("monolithicSparse");
    const uint64_t bytes = align_up(source ? source->length() : size, kSector);
    MeasureResult result;
    if (subformat == "monolithicFlat" || subformat == "twoGbMaxExtentFlat") {
      result.required = result.fully_allocated = bytes;
      co_return result;
    }
    const SparseHeader header = SparseHeader::fresh(bytes / kSector, false, false);
    const uint64_t grain = header.grain * kSector;
    const uint64_t overhead = header.overhead * kSector;
    uint64_t needed = 0;
    uint64_t counted = 0;
    for (uint64_t at = 0; source && at < source->length();) {
      const Extent extent = co_await source->extent_at(at, source->length() - at);
      if (extent.data && !extent.zero) {
        const uint64_t begin = std::max(counted, align_down(at, grain));
        const uint64_t end = align_up(at + extent.length, grain);
        if (end > begin) needed += end - begin;
        counted = std::max(counted, end);
      }
      at += extent.length;
      report_work(context, "measure", at, source->length());
    }
    result.required = overhead + needed;
    result.fully_allocated = overhead + align_up(bytes, grain);
    co_return result;
  }
};

}  // namespace

std::unique_ptr<Driver> make_vmdk_driver() { return std::make_unique<VmdkDriver>(); }

}  // namespace cairn
