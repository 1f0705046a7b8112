#include "base/base64.h"
#include "base/error.h"
#include "daemon/chardev/types.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"

namespace cairn::daemon {
namespace {

Task<Value> query_chardev(Daemon& daemon, Value) {
  Value list = Value::array();
  for (const auto& device : daemon.chardevs().all()) {
    Value one = Value::object();
    one.set("label", device->id());
    one.set("filename", device->filename());
    one.set("frontend-open", device->used());
    list.push_back(std::move(one));
  }
  co_return list;
}

Task<Value> query_chardev_backends(Daemon&, Value) {
  Value list = Value::array();
  for (const std::string_view name : chardev_backends()) {
    Value one = Value::object();
    one.set("name", name);
    list.push_back(std::move(one));
  }
  co_return list;
}

// Gives what chardev-add replies.
Task<Value> make_chardev(Daemon& daemon, std::string id, Value backend) {
  try {
    co_await daemon.chardevs().add(id, std::move(backend), daemon.stop());
  } catch (Error& error) {
    throw error.context("Failed to add chardev '" + id + "'");
  }
  Value reply = Value::object();
  const std::string terminal = daemon.chardevs().find(id)->terminal();
  if (!terminal.empty()) reply.set("pty", terminal);
  co_return reply;
}

Task<Value> chardev_add(Daemon& daemon, Value arguments) {
  const std::string id = text_of(arguments, "id");
  if (daemon.chardevs().find(id) != nullptr) invalid("Chardev with id '" + id + "' already exists");
  return make_chardev(daemon, id, *arguments.find("backend"));
}

// The old device goes first: the new one may be at the same place.
Task<Value> chardev_change(Daemon& daemon, Value arguments) {
  const std::string id = text_of(arguments, "id");
  const Chardev* device = daemon.chardevs().find(id);
  if (device == nullptr) invalid("Chardev '" + id + "' does not exist");
  if (device->busy()) invalid("Chardev user does not support chardev hotswap");
  daemon.chardevs().remove(id);
  return make_chardev(daemon, id, *arguments.find("backend"));
}

Task<Value> chardev_remove(Daemon& daemon, Value arguments) {
  daemon.chardevs().remove(text_of(arguments, "id"));
  co_return Value::object();
}

Task<Value> chardev_send_break(Daemon& daemon, Value arguments) {
  const std::string id = text_of(arguments, "id");
  if (daemon.chardevs().find(id) == nullptr) invalid("Chardev '" + id + "' not found");
  co_return Value::object();
}

Ringbuf& ringbuf(Daemon& daemon, const Value& arguments) {
  const std::string id = text_of(arguments, "device");
  Chardev* device = daemon.chardevs().find(id);
  if (device == nullptr) invalid("Device '" + id + "' not found");
  auto* buffer = dynamic_cast<Ringbuf*>(device);
  if (buffer == nullptr) invalid(id + " is not a ringbuf device");
  return *buffer;
}

Task<Value> ringbuf_write(Daemon& daemon, Value arguments) {
  Ringbuf& buffer = ringbuf(daemon, arguments);
  std::string data = text_of(arguments, "data");
  if (text_of(arguments, "format") == "base64") {
    const auto bytes = decode_base64(data);
    if (!bytes) invalid("Data is not valid base64");
    data = *bytes;
  }
  buffer.write(data);
  co_return Value::object();
}

Task<Value> ringbuf_read(Daemon& daemon, Value arguments) {
  Ringbuf& buffer = ringbuf(daemon, arguments);
  const int64_t size = number_of(arguments, "size", 0);
  if (size <= 0) invalid("size must be greater than zero");
  const std::string data = buffer.take(static_cast<size_t>(size));
  if (text_of(arguments, "format") == "base64") co_return encode_base64(data);
  co_return data;
}

constexpr Command kChardevCommands[] = {
    {"query-chardev", query_chardev},   {"query-chardev-backends", query_chardev_backends},
    {"chardev-add", chardev_add},       {"chardev-change", chardev_change},
    {"chardev-remove", chardev_remove}, {"chardev-send-break", chardev_send_break},
    {"ringbuf-read", ringbuf_read},     {"ringbuf-write", ringbuf_write},
};

}  // namespace

std::span<const Command> chardev_commands() { return kChardevCommands; }

}  // namespace cairn::daemon
