#include "daemon/commands/commands.h"

namespace cairn::daemon {
namespace {

// A new table is a file with a function, declared in the header, and a row here.
constexpr std::span<const Command> (*kTables[])() = {
    monitor_commands,  chardev_commands,   export_commands, node_commands,
    change_commands,   job_commands,       create_commands, chain_job_commands,
    copy_job_commands, drive_job_commands, object_commands, qom_commands,
};

}  // namespace

const Command* find_command(std::string_view name) {
  for (const auto table : kTables)
    for (const Command& command : table())
      if (command.name == name) return &command;
  return nullptr;
}

bool is_emitted(std::string_view event) {
  for (const std::string_view one :
       {"BLOCK_EXPORT_DELETED", "BLOCK_WRITE_THRESHOLD", "JOB_STATUS_CHANGE", "BLOCK_JOB_READY",
        "BLOCK_JOB_PENDING", "BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED", "BLOCK_JOB_ERROR",
        "QUORUM_FAILURE", "QUORUM_REPORT_BAD"})
    if (event == one) return true;
  return false;
}

std::string text_of(const Value& arguments, std::string_view name) {
  const Value* value = arguments.find(name);
  const auto* text = value == nullptr ? nullptr : value->get_if<std::string>();
  return text == nullptr ? std::string() : *text;
}

bool flag_of(const Value& arguments, std::string_view name, bool otherwise) {
  const Value* value = arguments.find(name);
  const bool* flag = value == nullptr ? nullptr : value->get_if<bool>();
  return flag == nullptr ? otherwise : *flag;
}

int64_t number_of(const Value& arguments, std::string_view name, int64_t otherwise) {
  const Value* value = arguments.find(name);
  const auto* number = value == nullptr ? nullptr : value->get_if<int64_t>();
  return number == nullptr ? otherwise : *number;
}

}  // namespace cairn::daemon
