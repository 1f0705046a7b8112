#include "operation/presets.h"

#include <fmt/core.h>

#include <algorithm>

#include "async/finally.h"
#include "base/arith.h"
#include "base/size.h"
#include "block/capabilities/backing_link.h"
#include "block/capabilities/checkable.h"
#include "block/capabilities/image_info.h"
#include "block/driver.h"
#include "format/vpc/azure.h"

namespace cairn::operation {
namespace {

constexpr uint64_t kPresetMiB = 1 << 20;
constexpr uint64_t kPresetGiB = uint64_t{1} << 30;
constexpr uint64_t kPresetTiB = uint64_t{1} << 40;

const PresetImage kStream{.format = "vmdk",
                          .ending = ".vmdk",
                          .options = {{"subformat", "streamOptimized"}},
                          .ready = "a streamOptimized VMDK"};
const PresetImage kAppliance{.format = "ova", .ending = ".ova", .options = {}, .ready = "an OVA"};
const PresetImage kRaw{
    .format = "raw", .ending = ".raw", .options = {}, .ready = "a raw disk", .compressed = false};
const PresetImage kQcow2{.format = "qcow2",
                         .ending = ".qcow2",
                         .options = {{"compat", "1.1"}},
                         .ready = "a qcow2 image"};

}  // namespace

const std::vector<Preset>& presets() {
  static const std::vector<Preset> all = {
      {"aws",
       "Amazon EC2 (VM Import)",
       "raw, VMDK, VHD and OVA images",
       512,
       16 * kPresetTiB,
       {kRaw,
        kStream,
        {.format = "vpc",
         .ending = ".vhd",
         .options = {{"force_size", "on"}},
         .ready = "a VHD",
         .compressed = false},
        kAppliance}},
      {"azure",
       "Azure",
       "VHD images",
       vpc::kAzureUnit,
       INT64_MAX,
       {{.format = "vpc",
         .ending = ".vhd",
         .options = {{"subformat", "fixed"}, {"force_size", "on"}},
         .ready = "a fixed VHD of whole MiB",
         .compressed = false,
         .findings = vpc::azure_findings}}},
      {"gcp",
       "Google Compute Engine",
       "tar.gz archives",
       kPresetGiB,
       64 * kPresetTiB,
       {{.format = "raw",
         .ending = ".tar.gz",
         .options = {},
         .ready = "disk.raw of whole GiB in a tar.gz archive",
         .archive = true,
         .compressed = false}}},
      {"hyperv",
       "Hyper-V",
       "VHDX images",
       kPresetMiB,
       64 * kPresetTiB,
       {{.format = "vhdx",
         .ending = ".vhdx",
         .options = {{"subformat", "dynamic"}},
         .ready = "a dynamic VHDX of whole MiB",
         .compressed = false}}},
      {"openstack", "OpenStack Glance", "qcow2 and raw images", 512, INT64_MAX, {kQcow2, kRaw}},
      {"proxmox", "Proxmox VE", "qcow2 and raw images", 512, INT64_MAX, {kQcow2, kRaw}},
      {"virtualbox",
       "VirtualBox",
       "VDI images",
       512,
       INT64_MAX,
       {{.format = "vdi", .ending = ".vdi", .options = {}, .ready = "a VDI", .compressed = false}}},
      {"vsphere",
       "VMware vSphere",
       "VMDK and OVA images",
       512,
       62 * kPresetTiB,
       {{.format = "vmdk",
         .ending = ".vmdk",
         .options = {{"subformat", "streamOptimized"}, {"adapter_type", "lsilogic"}},
         .ready = "a streamOptimized VMDK"},
        kAppliance}},
  };
  return all;
}

namespace {

template <class Get>
std::string listed(const Preset& preset, const char* before, Get get) {
  std::string text;
  for (const PresetImage& image : preset.images)
    text += (text.empty() ? "" : " or ") + std::string(before) + std::string(get(image));
  return text;
}

std::string said(const Value& info, std::string_view key) {
  const Value* value = info.find(key);
  const auto* text = value != nullptr ? value->get_if<std::string>() : nullptr;
  return text != nullptr ? *text : std::string();
}

// What is wrong with the open IMAGE; empty: nothing.
Task<std::string> finding_of(const Preset& preset, const PresetImage& wanted, NodePtr image) {
  if (image->driver().name() != wanted.format)
    co_return "it is of the format " + std::string(image->driver().name());
  if (!is_aligned(image->length(), preset.unit))
    co_return fmt::format("the disk has {} bytes, which is not a multiple of {}", image->length(),
                          human_size(preset.unit));
  if (!backing_name_of(*image).empty()) co_return "it has a backing file";
  const Value info = specific_info_of(*image);
  if (wanted.format == "qcow2" && !said(info, "data-file").empty())
    co_return "its data is in another file";
  if (wanted.format == "vmdk" && said(info, "create-type") != "streamOptimized")
    co_return "it is of the kind " + said(info, "create-type");
  if (wanted.format == "vhdx" && said(info, "subformat") != "dynamic")
    co_return "it is of the kind " + said(info, "subformat");
  if (!image->driver().offers<Checkable>() || wanted.format == "raw") co_return std::string();
  CheckRequest request;
  const CheckResult result = co_await check_image(*image, std::move(request));
  if (result.corruptions + result.check_errors != 0) co_return "`check` finds errors in it";
  co_return std::string();
}

// The same for the FILE of the image.
Task<std::string> finding_of_file(const PresetImage& wanted, NodePtr file) {
  const std::vector<std::string> all = co_await wanted.findings(*file);
  co_return all.empty() ? std::string() : all.front();
}

}  // namespace

const Preset& find_preset(const std::string& name) {
  std::string names;
  for (const Preset& preset : presets()) {
    if (preset.name == name) return preset;
    names += (names.empty() ? "" : ", ") + std::string(preset.name);
  }
  throw Error(ErrorKind::kInvalid, fmt::format("no cloud or hypervisor '{}' is known", name))
      .hint(fmt::format("Known are {}.", names), "for");
}

const PresetImage& choose_image(const Preset& preset, const std::string& target,
                                const std::string& by_name,
                                const std::optional<std::string>& format, bool compress,
                                Options& options) {
  const auto fits = [&](const PresetImage& image) {
    if (image.archive) return target.ends_with(image.ending) && format.value_or("raw") == "raw";
    if (format) return *format == image.format;
    return by_name.empty() || by_name == image.format;
  };
  const auto chosen = std::find_if(preset.images.begin(), preset.images.end(), fits);
  const std::string title(preset.title);
  if (chosen == preset.images.end())
    invalid(title + " takes " + std::string(preset.kinds) + " only: the target must be " +
            listed(preset, "NAME", [](const PresetImage& one) { return one.ending; }) +
            ", or of the format " +
            listed(preset, "", [](const PresetImage& one) { return one.format; }));
  if (compress && !chosen->compressed) invalid(title + " takes no compressed images");
  for (const auto& [key, value] : chosen->options) {
    const auto given = options.string(key);
    if (given && *given != value)
      invalid(title + " takes images with " + std::string(key) + "=" + std::string(value) +
              " only");
    options.set(key, value);
  }
  return *chosen;
}

uint64_t size_for(const Preset& preset, uint64_t size) {
  if (size > preset.most)
    throw Error(ErrorKind::kTooLarge, "the disk of " + human_size(size) +
                                          " is too large: " + std::string(preset.title) +
                                          " takes " + human_size(preset.most) + " at most");
  return align_up(size, preset.unit);
}

Task<void> check_for(Context& context, const Preset& preset, const PresetImage& image,
                     OpenRequest target) {
  if (image.findings != nullptr) target.format = "file";
  NodePtr node = co_await open_node(context, std::move(target));
  std::string finding;
  co_await finally(
      [&]() -> Task<void> {
        if (image.findings != nullptr)
          finding = co_await finding_of_file(image, node);
        else
          finding = co_await finding_of(preset, image, node);
      },
      [&] { return close_all({node}); });
  if (!finding.empty())
    throw Error(ErrorKind::kIo,
                std::string(preset.title) + " would not take the target: " + finding);
}

}  // namespace cairn::operation
