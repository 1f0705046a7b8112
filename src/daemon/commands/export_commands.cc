#include "base/error.h"
#include "daemon/chardev/types.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/exports.h"
#include "daemon/nbd_service.h"

namespace cairn::daemon {
namespace {

Task<Value> nbd_server_start(Daemon& daemon, Value arguments) {
  NbdService::Options options;
  options.address = legacy_address(*arguments.find("addr"));
  options.tls_creds = text_of(arguments, "tls-creds");
  options.tls_authz = text_of(arguments, "tls-authz");
  options.most_clients = static_cast<unsigned>(number_of(arguments, "max-connections", 100));
  options.handshake_limit = std::chrono::seconds(number_of(arguments, "handshake-max-seconds", 10));
  options.arguments = std::move(arguments);
  co_await daemon.nbd().start(std::move(options));
  co_return Value::object();
}

Task<Value> nbd_server_stop(Daemon& daemon, Value) {
  daemon.nbd().server();
  co_await daemon.exports().remove_all([](const LiveExport& one) { return one.type() == "nbd"; });
  co_await daemon.nbd().stop();
  co_return Value::object();
}

Task<Value> block_export_add(Daemon& daemon, Value arguments) {
  co_await daemon.exports().add(std::move(arguments));
  co_return Value::object();
}

Task<Value> block_export_del(Daemon& daemon, Value arguments) {
  const bool hard = text_of(arguments, "mode") == "hard";
  co_await daemon.exports().remove(text_of(arguments, "id"), hard);
  co_return Value::object();
}

Task<Value> query_block_exports(Daemon& daemon, Value) { co_return daemon.exports().describe(); }

// The older form of block-export-add: the name is the id as well.
Task<Value> nbd_server_add(Daemon& daemon, Value arguments) {
  daemon.nbd().server();
  const std::string device = text_of(arguments, "device");
  std::string name = text_of(arguments, "name");
  if (name.empty()) name = device;
  const NodePtr node = daemon.graph().find(device);
  if (node == nullptr)
    invalid("Cannot find device='" + device + "' nor node-name='" + device + "'");
  Value request = Value::object();
  request.set("type", "nbd");
  request.set("id", name);
  request.set("node-name", device);
  request.set("name", name);
  request.set("writable", flag_of(arguments, "writable", false) && !node->read_only());
  if (const Value* description = arguments.find("description"))
    request.set("description", *description);
  if (const Value* bitmap = arguments.find("bitmap")) {
    Value list = Value::array();
    list.push_back(*bitmap);
    request.set("bitmaps", std::move(list));
  }
  co_await daemon.exports().add(std::move(request));
  co_return Value::object();
}

Task<Value> nbd_server_remove(Daemon& daemon, Value arguments) {
  const bool hard = text_of(arguments, "mode") == "hard";
  co_await daemon.exports().remove(text_of(arguments, "name"), hard);
  co_return Value::object();
}

constexpr Command kExportCommands[] = {
    {"nbd-server-start", nbd_server_start},       {"nbd-server-stop", nbd_server_stop},
    {"nbd-server-add", nbd_server_add},           {"nbd-server-remove", nbd_server_remove},
    {"block-export-add", block_export_add},       {"block-export-del", block_export_del},
    {"query-block-exports", query_block_exports},
};

}  // namespace

std::span<const Command> export_commands() { return kExportCommands; }

}  // namespace cairn::daemon
