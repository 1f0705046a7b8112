#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/value.h"
#include "block/graph/action.h"

namespace cairn::daemon {

class Daemon;

// What can be a step of a transaction, and a command by itself.
struct ActionType {
  std::string_view name;  // of the command
  // DATA is as the schema says.
  std::unique_ptr<GraphAction> (*make)(Daemon& daemon, const Value& data);
};

// Null when there is none.
const ActionType* find_action(std::string_view name);

// The argument node-name of commands that take a device as well; there are no devices here.
std::string node_argument(const Value& arguments);

// Does the one step TYPE.
Task<Value> run_command_as_action(Daemon& daemon, std::string_view type, Value data);

}  // namespace cairn::daemon
