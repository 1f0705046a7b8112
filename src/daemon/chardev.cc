#include "daemon/chardev.h"

#include <algorithm>

#include "base/error.h"
#include "daemon/chardev_types.h"

namespace cairn::daemon {
namespace {

[[noreturn]] void no_such(std::string_view id) {
  invalid("Chardev '" + std::string(id) + "' not found");
}

}  // namespace

Task<std::unique_ptr<Channel>> Chardev::next_client() { co_return nullptr; }

Task<void> Chardev::start(CancelSource&) { co_return; }

const std::vector<std::string_view>& chardev_backends() {
  static const std::vector<std::string_view> names = {"null",  "ringbuf", "socket",
                                                      "stdio", "memory",  "file"};
  return names;
}

Chardev* Chardevs::find(std::string_view id) const {
  for (const auto& one : all_)
    if (one->id() == id) return one.get();
  return nullptr;
}

Task<void> Chardevs::add(std::string id, Value backend, CancelSource& cancel) {
  if (find(id) != nullptr) invalid("Chardev with id '" + id + "' already exists");
  const std::string type = *backend.find("type")->get_if<std::string>();
  const Value* given = backend.find("data");
  const Value data = given == nullptr ? Value::object() : *given;
  std::unique_ptr<Chardev> made;
  if (type == "null") {
    made = make_null_chardev(id);
  } else if (type == "ringbuf" || type == "memory") {
    made = make_ringbuf_chardev(id, data);
  } else if (type == "file") {
    made = make_file_chardev(id, data);
  } else if (type == "stdio") {
    if (stdio_taken_) invalid("cannot use stdio by multiple character devices");
    if (streams_.input < 0) invalid("cannot use stdio with -daemonize");
    stdio_taken_ = true;
    made = make_stdio_chardev(id, streams_.input, streams_.output);
  } else if (type == "socket") {
    made = co_await make_socket_chardev(id, data, sockets_);
  } else {
    invalid("'" + type + "' is not a valid char driver name");
  }
  Chardev& device = *made;
  device.backend_ = std::move(backend);
  all_.push_back(std::move(made));
  co_await device.start(cancel);
}

void Chardevs::remove(std::string_view id) {
  const auto at =
      std::find_if(all_.begin(), all_.end(), [&](const auto& one) { return one->id() == id; });
  if (at == all_.end()) no_such(id);
  if ((*at)->used()) invalid("Chardev '" + std::string(id) + "' is busy");
  if ((*at)->type() == "stdio") stdio_taken_ = false;
  (*at)->close();
  all_.erase(at);
}

void Chardevs::hold(bool on) {
  for (const auto& one : all_) one->hold(on);
}

void Chardevs::close_all() {
  for (const auto& one : all_) one->close();
}

// --- the option --chardev ---

namespace {

// "a.b" below DATA, as a text that the schema's check will read; PATH "addr.data.path".
void put_option(Value& data, std::string_view path, Value value) {
  const size_t dot = path.find('.');
  if (dot == std::string_view::npos) {
    data.set(path, std::move(value));
    return;
  }
  const std::string_view first = path.substr(0, dot);
  if (data.find(first) == nullptr) data.set(first, Value::object());
  for (Value::Member& member : *data.get_if<Value::Object>())
    if (member.first == first) put_option(member.second, path.substr(dot + 1), std::move(value));
}

struct Rule {
  std::string_view backend, option, place;
};
// Which option of a backend is which member of its data.
constexpr Rule kRules[] = {
    {"socket", "path", "addr.data.path"},
    {"socket", "abstract", "addr.data.abstract"},
    {"socket", "tight", "addr.data.tight"},
    {"socket", "host", "addr.data.host"},
    {"socket", "port", "addr.data.port"},
    {"socket", "to", "addr.data.to"},
    {"socket", "ipv4", "addr.data.ipv4"},
    {"socket", "ipv6", "addr.data.ipv6"},
    {"socket", "fd", "addr.data.str"},
    {"socket", "server", "server"},
    {"socket", "wait", "wait"},
    {"socket", "delay", ""},
    {"socket", "nodelay", "nodelay"},
    {"stdio", "signal", "signal"},
    {"file", "path", "out"},
    {"file", "append", "append"},
    {"file", "input-path", "in"},
    {"ringbuf", "size", "size"},
    {"memory", "size", "size"},
};

}  // namespace

ChardevLine parse_chardev(std::string_view text) {
  const Options options = Options::parse_list(text, "backend");
  ChardevLine line;
  line.id = options.string("id").value_or("");
  const std::string backend = options.string("backend").value_or("");
  if (backend.empty()) invalid("chardev: \"" + line.id + "\" missing backend");
  if (line.id.empty()) invalid("chardev: no id specified");
  const auto& known = chardev_backends();
  if (std::find(known.begin(), known.end(), backend) == known.end())
    invalid("'" + backend + "' is not a valid char driver name");
  Value data = Value::object();
  for (const auto& [name, value] : options.items()) {
    if (name == "id" || name == "backend") continue;
    const auto rule = std::find_if(std::begin(kRules), std::end(kRules), [&](const Rule& one) {
      return one.backend == backend && one.option == name;
    });
    if (rule == std::end(kRules)) invalid("Invalid parameter '" + name + "'");
    if (!rule->place.empty()) put_option(data, rule->place, value.scalar_text());
  }
  if (backend == "socket") {
    const bool unix_path = options.has("path");
    if (!unix_path && !options.has("port") && !options.has("fd"))
      invalid("chardev: socket: one of 'path', 'fd' or 'port' options is required");
    if (unix_path && options.has("port"))
      invalid("'path' and 'port' options are mutually exclusive");
    if (options.has("port") && !options.has("host")) put_option(data, "addr.data.host", "");
    put_option(data, "addr.type", unix_path ? "unix" : options.has("fd") ? "fd" : "inet");
    if (!options.has("server")) data.set("server", "off");
  }
  if (backend == "file" && !options.has("path")) invalid("chardev: file: no filename given");
  line.backend = Value::object();
  line.backend.set("type", backend);
  line.backend.set("data", std::move(data));
  return line;
}

}  // namespace cairn::daemon
