#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/schema/schema.h"
#include "daemon/version.h"

namespace cairn::daemon {
namespace {

// What clients can use: what has a row in a table, and the events that come.
bool is_shown(const SchemaEntry& entry) {
  if (entry.event) return is_emitted(entry.name);
  return entry.name == "qmp_capabilities" || find_command(entry.name) != nullptr;
}

Task<Value> query_version(Daemon&, Value) { co_return version_reply(); }

Task<Value> query_commands(Daemon&, Value) {
  Value list = Value::array();
  for (const SchemaEntry& entry : Schema::get().entries()) {
    if (entry.event || !is_shown(entry)) continue;
    Value one = Value::object();
    one.set("name", entry.name);
    list.push_back(std::move(one));
  }
  co_return list;
}

Task<Value> query_qmp_schema(Daemon&, Value) { co_return introspect(is_shown); }

Task<Value> quit(Daemon& daemon, Value) {
  daemon.stop().request();
  co_return Value::object();
}

constexpr Command kMonitorCommands[] = {
    {"query-version", query_version},
    {"query-commands", query_commands},
    {"query-qmp-schema", query_qmp_schema},
    {"quit", quit},
};

}  // namespace

std::span<const Command> monitor_commands() { return kMonitorCommands; }

}  // namespace cairn::daemon
