#include "operation/configuration.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <set>

#include "base/error.h"
#include "block/config_file.h"
#include "block/context.h"

namespace cairn::operation {
namespace {

constexpr std::string_view kIscsiKeys[] = {"user",           "password",      "password-secret",
                                           "initiator-name", "header-digest", "timeout"};

// Groups of the emulator that have no meaning without a machine.
constexpr std::string_view kMachine[] = {
    "accel",    "acpi",   "action",   "add-fd",  "boot-opts", "chardev",    "device",     "drive",
    "fsdev",    "fw_cfg", "global",   "icount",  "machine",   "memory",     "mon",        "msg",
    "name",     "net",    "netdev",   "nic",     "numa",      "option-rom", "overcommit", "plugin",
    "realtime", "rtc",    "run-with", "sandbox", "set",       "smbios",     "smp-opts",   "spice",
    "tpmdev",   "trace",  "virtfs",   "vnc"};

void check_iscsi(const Options& values) {
  for (const auto& [key, value] : values.items())
    if (std::find(std::begin(kIscsiKeys), std::end(kIscsiKeys), key) == std::end(kIscsiKeys))
      invalid("Invalid parameter '" + key + "'");
  const auto text = values.string("timeout");
  if (text && (text->empty() || text->find_first_not_of("0123456789") != std::string::npos))
    invalid("Parameter 'timeout' expects a number");
}

void add_object(Context& context, const ConfigSection& section) {
  Options values = section.values;
  const auto type = values.string("qom-type");
  if (!type) invalid("Parameter 'qom-type' is missing");
  values.erase("qom-type");
  values.set("id", section.id);
  context.add_object(*type, std::move(values));
}

std::string content_of(const std::string& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), {});
  if (!file.is_open() || file.bad())
    throw Error::system(errno == 0 ? EIO : errno, "Could not open '" + path + "'");
  return text;
}

}  // namespace

void read_configuration(Context& context, const std::string& path,
                        const std::function<void(std::string_view)>& note) {
  std::set<std::string> passed_over;
  for (ConfigSection& section : parse_config(content_of(path), path)) {
    try {
      if (section.group == "iscsi") {
        check_iscsi(section.values);
        context.configuration.push_back(std::move(section));
      } else if (section.group == "object") {
        add_object(context, section);
      } else if (std::find(std::begin(kMachine), std::end(kMachine), section.group) !=
                 std::end(kMachine)) {
        passed_over.insert(section.group);
      } else {
        invalid("There is no option group '" + section.group + "'");
      }
    } catch (Error& error) {
      throw error.context(path);
    }
  }
  for (const std::string& group : passed_over)
    note(path + ": what it says of '" + group + "' is for a machine, and not used here");
}

void add_iscsi_section(Context& context, const std::string& definition) {
  ConfigSection section{.group = "iscsi", .id = {}, .values = Options::parse_list(definition)};
  section.id = section.values.string("id").value_or("");
  section.values.erase("id");
  check_iscsi(section.values);
  context.configuration.push_back(std::move(section));
}

}  // namespace cairn::operation
