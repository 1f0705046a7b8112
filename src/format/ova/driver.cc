#include "block/driver.h"

#include <algorithm>

#include "block/open_format.h"
#include "format/ova/node.h"
#include "format/ova/packer.h"
#include "platform/directory.h"

namespace cairn {

using namespace ova;

namespace {

const OptionSchema kOpenOptions = {
    {"disk", OptionType::kString, "", "which disk of several: its number, identifier or file"},
};
const OptionSchema kCreateOptions = {
    {"cpus", OptionType::kNumber, "", "Processors of the virtual machine"},
    {"hardware", OptionType::kString, "", "Hardware of the virtual machine, as VMware names it"},
    {"memory", OptionType::kSize, "", "Memory of the virtual machine"},
    {"name", OptionType::kString, "", "Name of the virtual machine; the file's when not given"},
    {"size", OptionType::kSize, "", "Virtual disk size"},
};

constexpr uint64_t kMaxProcessors = 4096;
constexpr uint64_t kMiB = 1 << 20;

std::string stem_of_path(const std::string& path) {
  std::string name = path.substr(platform::last_separator(path) + 1);
  return plain_name(name.substr(0, name.rfind('.')));
}

Appliance plan(const std::string& filename, uint64_t size, const Options& options) {
  Appliance result;
  result.disk_bytes = size;
  result.name = options.string("name").value_or(stem_of_path(filename));
  result.hardware = options.string("hardware").value_or(result.hardware);
  result.processors = options.number("cpus").value_or(1);
  result.memory_mib = options.size("memory").value_or(kMiB << 10) / kMiB;
  for (const std::string& text : {result.name, result.hardware})
    if (text.empty() ||
        std::any_of(text.begin(), text.end(), [](unsigned char c) { return c < ' '; }))
      throw Error(ErrorKind::kInvalid, "'" + text + "' cannot be stored in an OVF descriptor");
  if (result.processors < 1 || result.processors > kMaxProcessors)
    throw Error(ErrorKind::kInvalid,
                "cpus must be between 1 and " + std::to_string(kMaxProcessors));
  if (result.memory_mib < 4) throw Error(ErrorKind::kInvalid, "memory must be at least 4M");
  if (size == 0) throw Error(ErrorKind::kInvalid, "The disk of an appliance cannot be empty");
  return result;
}

bool is_descriptor_name(const std::string& name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string::npos || name.size() - dot != 4) return false;
  return (name[dot + 1] | 0x20) == 'o' && (name[dot + 2] | 0x20) == 'v' &&
         (name[dot + 3] | 0x20) == 'f';
}

bool is_directory(ByteSpan header) { return static_cast<char>(header[156]) == '5'; }

bool is_appliance(const ProbeInput& input) {
  if (input.head.size() < kTarBlock) return false;
  // Archives may begin with the entries of directories.
  ByteSpan head = input.head;
  while (head.size() >= 2 * kTarBlock && TarHeader::looks_like(head) && is_directory(head))
    head = head.subspan(kTarBlock);
  if (TarHeader::looks_like(head)) return is_descriptor_name(load_text(head, 0, 100));
  const std::string text = load_text(input.head, 0, input.head.size());
  const bool envelope = text.find("Envelope") != std::string::npos &&
                        text.find("/ovf/envelope/") != std::string::npos;
  return envelope && is_descriptor_name(std::string(input.filename));
}

const std::vector<Sample> kSamples = {
    {.name = "default", .rewrites = false},
};

class OvaDriver : public FormatDriver<OvaNode> {
 public:
  OvaDriver()
      : FormatDriver({.name = "ova",
                      .title = "appliances (OVA): the disk inside",
                      .endings = {"ova"},
                      .page = "formats/ova.md",
                      .abilities = {.create = true},
                      .open_options = kOpenOptions,
                      .create_options = kCreateOptions,
                      .samples = kSamples}) {}
  // Others take archives for raw disks.
  ProbeResult probe(const ProbeInput& input) const override {
    return {.score = is_appliance(input) ? 100 : 0, .extension = true};
  }

  void check_creation(Context&, const std::string& filename, uint64_t size,
                      const Options& options) const override {
    plan(filename, size, options);
  }

  Task<void> create(Context&, CreateRequest request) const override {
    const Appliance appliance = plan(request.filename, request.size, request.options);
    const std::string stem = stem_of_path(request.filename);
    if (request.file->length() != 0) co_await request.file->resize({.length = 0});
    Packer packer(*request.file);
    co_await packer.add_text(stem + ".ovf", compose(appliance));
    co_await packer.finish(stem + ".mf");
  }
};

}  // namespace

std::unique_ptr<Driver> make_ova_driver() { return std::make_unique<OvaDriver>(); }

}  // namespace cairn
