// The option --chardev: which of its words is which member of chardev-add.

#include <algorithm>
#include <array>
#include <charconv>

#include "base/error.h"
#include "daemon/chardev/chardev.h"

namespace cairn::daemon {
namespace {

enum class Kind { kText, kFlag, kNumber, kSize };
struct Known {
  std::string_view name;
  Kind kind = Kind::kText;
};
// Every device takes all of them; each uses its own.
constexpr Known kKnown[] = {
    {"abstract", Kind::kFlag},
    {"append", Kind::kFlag},
    {"backend"},
    {"chardev"},
    {"clipboard", Kind::kFlag},
    {"cols", Kind::kNumber},
    {"debug", Kind::kNumber},
    {"delay", Kind::kFlag},
    {"fd"},
    {"height", Kind::kNumber},
    {"host"},
    {"id"},
    {"input-path"},
    {"ipv4", Kind::kFlag},
    {"ipv6", Kind::kFlag},
    {"localaddr"},
    {"localport"},
    {"logappend", Kind::kFlag},
    {"logfile"},
    {"mouse", Kind::kFlag},
    {"mux", Kind::kFlag},
    {"name"},
    {"nodelay", Kind::kFlag},
    {"path"},
    {"port"},
    {"reconnect", Kind::kNumber},
    {"reconnect-ms", Kind::kNumber},
    {"rows", Kind::kNumber},
    {"server", Kind::kFlag},
    {"signal", Kind::kFlag},
    {"size", Kind::kSize},
    {"telnet", Kind::kFlag},
    {"tight", Kind::kFlag},
    {"tls-authz"},
    {"tls-creds"},
    {"tn3270", Kind::kFlag},
    {"to", Kind::kNumber},
    {"wait", Kind::kFlag},
    {"websocket", Kind::kFlag},
    {"width", Kind::kNumber},
};

struct Rule {
  std::string_view backend, option, member;
};
// Which option of a backend is which member of its data; addresses are apart.
constexpr Rule kRules[] = {
    {"socket", "server", "server"},       {"socket", "wait", "wait"},
    {"socket", "nodelay", "nodelay"},     {"socket", "telnet", "telnet"},
    {"socket", "tn3270", "tn3270"},       {"socket", "websocket", "websocket"},
    {"socket", "reconnect", "reconnect"}, {"socket", "reconnect-ms", "reconnect-ms"},
    {"socket", "tls-creds", "tls-creds"}, {"socket", "tls-authz", "tls-authz"},
    {"stdio", "signal", "signal"},        {"file", "path", "out"},
    {"file", "append", "append"},         {"file", "input-path", "in"},
    {"pipe", "path", "device"},           {"serial", "path", "device"},
    {"parallel", "path", "device"},       {"pty", "path", "path"},
    {"mux", "chardev", "chardev"},        {"ringbuf", "size", "size"},
    {"memory", "size", "size"},
};
struct Needed {
  std::string_view backend, option, text;
};
constexpr Needed kNeeded[] = {
    {"file", "path", "chardev: file: no filename given"},
    {"pipe", "path", "chardev: pipe: no device path given"},
    {"serial", "path", "chardev: serial/tty: no device path given"},
    {"parallel", "path", "chardev: parallel: no device path given"},
    {"udp", "port", "chardev: udp: remote port not specified"},
    {"mux", "chardev", "chardev: mux: no chardev given"},
};

int64_t number_in(const std::string& name, const std::string& text) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  if (result.ec != std::errc() || result.ptr != end)
    invalid("Parameter '" + name + "' expects a number");
  return value;
}

bool is_part(std::string_view name) { return name.starts_with("chardevs."); }

// The value of an option; throws where it is unknown or has none that it can have.
Value checked(const Options& options, const std::string& name, const Value& value) {
  const auto known = std::find_if(std::begin(kKnown), std::end(kKnown),
                                  [&](const Known& one) { return one.name == name; });
  if (known == std::end(kKnown)) invalid("Invalid parameter '" + name + "'");
  switch (known->kind) {
    case Kind::kFlag: {
      const std::string text = value.scalar_text();
      if (text != "on" && text != "off" && text != "true" && text != "false" && text != "yes" &&
          text != "no" && text != "y" && text != "n")
        invalid("Parameter '" + name + "' expects 'on' or 'off'");
      return *options.boolean(name);
    }
    case Kind::kNumber:
      return number_in(name, value.scalar_text());
    case Kind::kSize:
      return static_cast<int64_t>(
          std::min<uint64_t>(*options.size(name), static_cast<uint64_t>(INT64_MAX)));
    case Kind::kText:
      break;
  }
  return value.scalar_text();
}

Value legacy(std::string_view type, Value data) {
  Value address = Value::object();
  address.set("type", type);
  address.set("data", std::move(data));
  return address;
}

void copy_flag(const Options& options, std::string_view name, Value& data) {
  if (options.has(name)) data.set(name, *options.boolean(name));
}

Value inet(const Options& options, std::string_view host, std::string_view port) {
  Value data = Value::object();
  data.set("host", options.string(host).value_or(""));
  data.set("port", options.string(port).value_or(port == "localport" ? "0" : ""));
  copy_flag(options, "ipv4", data);
  copy_flag(options, "ipv6", data);
  return data;
}

Value socket_address(const Options& options) {
  const int named = static_cast<int>(options.has("path")) + static_cast<int>(options.has("fd")) +
                    static_cast<int>(options.has("host"));
  if (named > 1) invalid("None or one of 'path', 'fd' or 'host' option required.");
  Value data = Value::object();
  if (options.has("path")) {
    data.set("path", *options.string("path"));
    copy_flag(options, "abstract", data);
    copy_flag(options, "tight", data);
    return legacy("unix", std::move(data));
  }
  if (options.has("host")) {
    if (!options.has("port")) invalid("chardev: socket: no port given");
    data = inet(options, "host", "port");
    if (options.has("to")) data.set("to", number_in("to", *options.string("to")));
    return legacy("inet", std::move(data));
  }
  const std::string descriptor = options.string("fd").value_or("");
  if (descriptor.empty()) invalid("Unable to parse FD number ");
  data.set("str", descriptor);
  return legacy("fd", std::move(data));
}

Value data_of(const Options& options, const std::string& backend) {
  for (const Needed& needed : kNeeded)
    if (needed.backend == backend && options.string(needed.option).value_or("").empty())
      invalid(std::string(needed.text));
  Value data = Value::object();
  Value parts = Value::array();
  for (const auto& [name, value] : options.items()) {
    if (backend == "hub" && is_part(name)) {
      parts.push_back(value.scalar_text());
      continue;
    }
    Value typed = checked(options, name, value);
    const bool common = name == "logfile" || name == "logappend";
    const auto rule = std::find_if(std::begin(kRules), std::end(kRules), [&](const Rule& one) {
      return one.backend == backend && one.option == name;
    });
    if (common || rule != std::end(kRules))
      data.set(common ? std::string_view(name) : rule->member, std::move(typed));
  }
  if (backend == "hub") data.set("chardevs", std::move(parts));
  if (backend == "socket") {
    data.set("addr", socket_address(options));
    if (!options.has("server")) data.set("server", false);
  }
  if (backend == "udp") {
    data.set("remote", legacy("inet", inet(options, "host", "port")));
    if (options.has("localaddr") || options.has("localport"))
      data.set("local", legacy("inet", inet(options, "localaddr", "localport")));
  }
  return data;
}

ChardevLine line_of(std::string id, std::string_view type, Value data) {
  ChardevLine line;
  line.id = std::move(id);
  line.backend = Value::object();
  line.backend.set("type", type);
  line.backend.set("data", std::move(data));
  return line;
}

}  // namespace

std::string shared_id(std::string_view id) { return std::string(id) + "-base"; }

std::vector<ChardevLine> parse_chardev(std::string_view text) {
  const Options options = Options::parse_list(text, "backend");
  const std::string id = options.string("id").value_or("");
  const std::string backend = options.string("backend").value_or("");
  if (!options.has("backend")) invalid("chardev: \"" + id + "\" missing backend");
  if (id.empty()) invalid("chardev: no id specified");
  const auto& known = chardev_backends();
  if (std::find(known.begin(), known.end(), backend) == known.end())
    invalid("'" + backend + "' is not a valid char driver name");
  Value data = data_of(options, backend);
  std::vector<ChardevLine> lines;
  if (!options.boolean("mux").value_or(false)) {
    lines.push_back(line_of(id, backend, std::move(data)));
    return lines;
  }
  lines.push_back(line_of(shared_id(id), backend, std::move(data)));
  Value mux = Value::object();
  mux.set("chardev", shared_id(id));
  lines.push_back(line_of(id, "mux", std::move(mux)));
  return lines;
}

}  // namespace cairn::daemon
