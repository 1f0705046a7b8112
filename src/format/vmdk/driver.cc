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
    {"size", OptionType::kSize, "", "Virtual disk size"},
    {"adapter_type", OptionType::kString, "",
     "Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX"},
    {"backing_file", OptionType::kString, "", "File name of a base image"},
    {"backing_fmt", OptionType::kString, "", "Must be 'vmdk' if present"},
    {"compat6", OptionType::kBool, "off", "VMDK version 6 image"},
    {"hwversion", OptionType::kString, "undefined", "VMDK hardware version"},
    {"toolsversion", OptionType::kString, "", "VMware guest tools version"},
    {"subformat", OptionType::kString, "",
     "VMDK flat extent format, can be one of {monolithicSparse (default) | monolithicFlat | "
     "twoGbMaxExtentSparse | twoGbMaxExtentFlat | streamOptimized} "},
    {"zeroed_grain", OptionType::kBool, "",
     "Enable efficient zero writes using the zeroed-grain GTE feature"},
};

const std::vector<Sample> kSamples = {
    {.name = "sparse",
     .options = "subformat=monolithicSparse",
     .crash = Sample::Crash::kClean,
     .exchanged = true},
    {.name = "flat", .options = "subformat=monolithicFlat", .exchanged = true},
    {.name = "split", .options = "subformat=twoGbMaxExtentSparse", .exchanged = true},
    {.name = "split_flat",
     .options = "subformat=twoGbMaxExtentFlat",
     .rewrites = false,
     .exchanged = true},
    {.name = "stream",
     .options = "subformat=streamOptimized",
     .rewrites = false,
     .exchanged = true},
    {.name = "zeroed", .options = "zeroed_grain=on", .crash = Sample::Crash::kClean},
};

class VmdkDriver : public FormatDriver<VmdkNode> {
 public:
  VmdkDriver()
      : FormatDriver({.name = "vmdk",
                      .title = "VMware disks, of one file or many",
                      .endings = {"vmdk"},
                      .page = "formats/vmdk.md",
                      .abilities = {.create = true, .repair = true},
                      .extensions = {.repair = true, .measure = true},
                      .create_options = kCreateOptions,
                      .samples = kSamples}) {}
  ProbeResult probe(const ProbeInput& input) const override {
    if (is_sparse(input.head) || is_cowd(input.head)) return {.score = 100};
    const size_t bytes = std::min<uint64_t>(input.head.size(), input.length);
    const std::string_view text(reinterpret_cast<const char*>(input.head.data()), bytes);
    return {.score = looks_like_descriptor(text) ? 100 : 0};
  }

  Task<void> create(Context& context, CreateRequest request) const override {
    co_await create_disk(context, std::move(request));
  }

  Task<MeasureResult> measure(Context& context, Options options, uint64_t size,
                              NodePtr source) const override {
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
