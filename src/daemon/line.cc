#include "daemon/line.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "daemon/keyval.h"
#include "daemon/objects.h"

namespace cairn::daemon {
namespace {

struct Option {
  std::string_view name, implied_key, command;
};
// Options that are commands.
constexpr Option kLineOptions[] = {
    {"blockdev", "driver", "blockdev-add"},
    {"export", "type", "block-export-add"},
    {"nbd-server", "", "nbd-server-start"},
    {"object", "qom-type", "object-add"},
};

Keyval parsed(const std::string& argument, std::string_view implied_key) {
  Keyval keyval = parse_keyval(argument, implied_key);
  if (keyval.help) invalid("Help is not available for this option");
  if (!keyval.value.is_object()) invalid("Parameters must be given as an object");
  return keyval;
}

struct MonitorLine {
  std::string chardev;
  bool pretty = false;
};

MonitorLine parse_monitor(const std::string& argument) {
  const Keyval keyval = parsed(argument, "chardev");
  const Form form = keyval.json ? Form::kJson : Form::kKeyval;
  MonitorLine line;
  for (const auto& [name, value] : *keyval.value.get_if<Value::Object>()) {
    if (name == "chardev") {
      line.chardev = value.scalar_text();
    } else if (name == "pretty") {
      line.pretty = *checked_value("bool", value, form, name).get_if<bool>();
    } else if (name == "mode") {
      if (value.scalar_text() == "readline") invalid("Only QMP is supported");
      if (value.scalar_text() != "control")
        invalid("Parameter 'mode' does not accept value '" + value.scalar_text() + "'");
    } else if (name != "id") {
      invalid("Parameter '" + name + "' is unexpected");
    }
  }
  if (keyval.value.find("chardev") == nullptr) invalid("Parameter 'chardev' is missing");
  return line;
}

// The address of --metrics, which has no other members.
SocketAddress parse_metrics(const std::string& argument) {
  const Keyval keyval = parsed(argument, "");
  const Form form = keyval.json ? Form::kJson : Form::kKeyval;
  for (const auto& [name, value] : *keyval.value.get_if<Value::Object>())
    if (name != "addr") invalid("Parameter '" + name + "' is unexpected");
  const Value* address = keyval.value.find("addr");
  if (address == nullptr) invalid("Parameter 'addr' is missing");
  const Value checked = checked_value("SocketAddress", *address, form, "addr");
  return SocketAddress::from_options(Options::from_value(checked));
}

// The file of --state.
std::string parse_state(const std::string& argument) {
  const Keyval keyval = parsed(argument, "file");
  for (const auto& [name, value] : *keyval.value.get_if<Value::Object>())
    if (name != "file") invalid("Parameter '" + name + "' is unexpected");
  const Value* file = keyval.value.find("file");
  if (file == nullptr || file->scalar_text().empty()) invalid("Parameter 'file' is missing");
  return std::filesystem::absolute(file->scalar_text());
}

// The option has the address in one piece, the command has its details below "data".
Value legacy_server(Value arguments, Form form) {
  Value* address = nullptr;
  for (Value::Member& member : *arguments.get_if<Value::Object>())
    if (member.first == "addr") address = &member.second;
  if (address == nullptr) invalid("Parameter 'addr' is missing");
  const Value checked = checked_value("SocketAddress", *address, form, "addr");
  Value data = Value::object();
  for (const auto& [name, value] : *checked.get_if<Value::Object>())
    if (name != "type") data.set(name, value);
  Value legacy = Value::object();
  legacy.set("type", *checked.find("type"));
  legacy.set("data", std::move(data));
  *address = std::move(legacy);
  return arguments;
}

// An option that is a command, with its arguments.
struct CommandLine {
  std::string_view command;
  Value arguments;
  Form form = Form::kJson;
};

CommandLine parse_command(const std::string& name, const std::string& argument) {
  const auto option = std::find_if(std::begin(kLineOptions), std::end(kLineOptions),
                                   [&](const Option& one) { return one.name == name; });
  Keyval keyval = parsed(argument, option->implied_key);
  CommandLine line;
  line.command = option->command;
  line.form = keyval.json ? Form::kJson : Form::kKeyval;
  line.arguments = std::move(keyval.value);
  if (name == "nbd-server") line.arguments = legacy_server(std::move(line.arguments), line.form);
  return line;
}

Value checked_backend(ChardevLine line) {
  return checked_value("ChardevBackend", std::move(line.backend), Form::kJson);
}

std::string chardev_help() {
  std::string text = "Available chardev backend types: \n";
  for (const std::string_view name : chardev_backends()) text += "  " + std::string(name) + "\n";
  return text;
}

std::string object_types_help() {
  std::string text = "List of user creatable objects:\n";
  for (const ObjectType& type : daemon_object_types()) text += "  " + std::string(type.name) + "\n";
  return text;
}

std::string object_help(const ObjectType& type, bool extensions) {
  std::string text = std::string(type.name) + " options:\n";
  for (const ObjectProperty& property : type.properties)
    if (extensions || !property.extension)
      text += "  " + std::string(property.name) + "=<" + std::string(property.type) + ">\n";
  return text;
}

}  // namespace

std::string help_of(std::string_view option, const std::string& argument, bool extensions) {
  if (option == "chardev" && (argument == "help" || argument == "?")) return chardev_help();
  if (option != "object" || argument.starts_with('{')) return {};
  const Options words = Options::parse_list(argument, "qom-type");
  const std::string type = words.string("qom-type").value_or("");
  if (type == "help" || type == "?") return object_types_help();
  if (!words.has("help") && !words.has("?")) return {};
  const ObjectType* known = find_object_type(type);
  return known == nullptr ? object_types_help() : object_help(*known, extensions);
}

void check_option(const std::string& name, const std::string& argument) {
  if (name == "monitor") {
    parse_monitor(argument);
  } else if (name == "chardev") {
    for (ChardevLine& line : parse_chardev(argument)) checked_backend(std::move(line));
  } else if (name == "metrics") {
    parse_metrics(argument);
  } else if (name == "state") {
    parse_state(argument);
  } else {
    CommandLine line = parse_command(name, argument);
    const std::string_view type = Schema::get().find_command(line.command)->argument;
    checked_value(type, std::move(line.arguments), line.form);
  }
}

Task<void> run_option(Daemon& daemon, std::string name, std::string argument) {
  if (name == "monitor") {
    const MonitorLine line = parse_monitor(argument);
    daemon.add_monitor(line.chardev, line.pretty);
    co_return;
  }
  if (name == "chardev") {
    for (ChardevLine& line : parse_chardev(argument)) {
      const std::string id = line.id;
      Value backend = checked_backend(std::move(line));
      co_await daemon.chardevs().add(id, std::move(backend), daemon.stop());
      const std::string terminal = daemon.chardevs().find(id)->terminal();
      if (!terminal.empty())
        daemon.options().show("char device redirected to " + terminal + " (label " + id + ")");
    }
    co_return;
  }
  if (name == "metrics") {
    SocketAddress address = parse_metrics(argument);
    co_await daemon.metrics().start(std::move(address));
    co_return;
  }
  if (name == "state") {
    if (daemon.journal() != nullptr) invalid("The jobs are kept in a file already");
    co_await daemon.keep_jobs(parse_state(argument), false);
    co_return;
  }
  CommandLine line = parse_command(name, argument);
  co_await daemon.execute(std::string(line.command), std::move(line.arguments), line.form);
}

}  // namespace cairn::daemon
