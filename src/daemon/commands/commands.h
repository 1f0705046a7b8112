// src/daemon/commands: what the commands of QMP do, a table a file. A command that has no row is
// not known, and introspection does not show it. May include all of src/daemon.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "async/task.h"
#include "base/value.h"

namespace cairn::daemon {

class Daemon;

struct Command {
  std::string_view name;
  // ARGUMENTS are as the schema says. Gives the member "return" of the reply; throws QmpError or
  // Error. One at a time, on the daemon's worker.
  Task<Value> (*run)(Daemon& daemon, Value arguments);
};

// The tables, in the files of these names.
std::span<const Command> monitor_commands();
std::span<const Command> chardev_commands();
std::span<const Command> export_commands();
std::span<const Command> node_commands();
std::span<const Command> job_commands();
std::span<const Command> create_commands();
std::span<const Command> chain_job_commands();
std::span<const Command> copy_job_commands();
std::span<const Command> drive_job_commands();
std::span<const Command> object_commands();
std::span<const Command> qom_commands();
std::span<const Command> change_commands();

// Null when there is none.
const Command* find_command(std::string_view name);
// The events that something emits.
bool is_emitted(std::string_view event);

// --- reading arguments that the schema has checked ---

// Empty when there is no such member.
std::string text_of(const Value& arguments, std::string_view name);
bool flag_of(const Value& arguments, std::string_view name, bool otherwise);
int64_t number_of(const Value& arguments, std::string_view name, int64_t otherwise);

}  // namespace cairn::daemon
