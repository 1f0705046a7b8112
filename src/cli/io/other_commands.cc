#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "block/capabilities/capabilities.h"
#include "cli/io/shell.h"

namespace cairn::cli::io {
namespace {

Task<bool> abort_command(Shell&, std::vector<std::string>) {
  std::fflush(stdout);
  std::abort();
  co_return false;
}

Task<bool> quit_command(Shell& shell, std::vector<std::string>) {
  shell.quit = true;
  co_return true;
}

Task<bool> help_command(Shell& shell, std::vector<std::string> line) {
  const bool explains = shell.session.manners.explains;
  if (line.size() == 1 && explains) {
    print_own_help();
    co_return true;
  }
  if (line.size() == 1) {
    for (const Command& command : commands()) shell.print_usage(command);
    print("\nUse 'help commandname' for extended help.\n");
    co_return true;
  }
  const Command* command = find_command(line[1]);
  if (command == nullptr) throw Failed{"command " + line[1] + " not found"};
  if (explains) {
    print_own_help(*command);
    co_return true;
  }
  shell.print_usage(*command);
  print(command->help);
  co_return true;
}

Task<bool> sleep_command(Shell&, std::vector<std::string> line) {
  char* end = nullptr;
  errno = 0;
  const long milliseconds = std::strtol(line[1].c_str(), &end, 0);
  if (*end != 0 || errno != 0 || milliseconds < 0) throw Failed{line[1] + " is not a valid number"};
  std::fflush(stdout);
  co_await sleep_for(std::chrono::milliseconds(milliseconds));
  co_return true;
}

Task<bool> sigraise_command(Shell& shell, std::vector<std::string> line) {
  const uint64_t number_of_signal = number(shell, line[1]);
  if (number_of_signal > static_cast<uint64_t>(NSIG))
    throw Failed{"signal argument '" + line[1] + "' is too large to be a valid signal"};
  // Nothing that was said may be lost when the signal ends the program.
  std::fflush(stdout);
  std::raise(static_cast<int>(number_of_signal));
  co_return true;
}

// --- breakpoints ---

template <class F>
bool with_debugger(Shell& shell, const std::string& complaint, F action) {
  DebugPort* port = shell.node->debug_port();
  bool found = false;
  if (port != nullptr) found = action(*port);
  if (!found)
    throw Failed{complaint + ": " + Error::system(port == nullptr ? ENOTSUP : ENOENT).message()};
  return true;
}

Task<bool> break_command(Shell& shell, std::vector<std::string> line) {
  co_return with_debugger(shell, "Could not set breakpoint", [&](DebugPort& port) {
    const auto event = parse_debug_event(line[1]);
    if (event) port.set_breakpoint(*event, line[2]);
    return event.has_value();
  });
}

Task<bool> remove_break_command(Shell& shell, std::vector<std::string> line) {
  co_return with_debugger(shell, "Could not remove breakpoint " + line[1],
                          [&](DebugPort& port) { return port.remove_breakpoint(line[1]); });
}

Task<bool> resume_command(Shell& shell, std::vector<std::string> line) {
  const bool good = with_debugger(shell, "Could not resume request",
                                  [&](DebugPort& port) { return port.resume(line[1]); });
  // Lets the request go on before the next command.
  co_await yield_now();
  co_return good;
}

Task<bool> wait_break_command(Shell& shell, std::vector<std::string> line) {
  DebugPort* port = shell.node->debug_port();
  if (port == nullptr)
    throw Failed{"Could not wait for breakpoint: " + Error::system(ENOTSUP).message()};
  std::fflush(stdout);
  while (!port->is_suspended(line[1])) {
    if (shell.running == 0)
      throw Failed{"Could not wait for breakpoint: no request is on its way to '" + line[1] + "'"};
    co_await sleep_for(std::chrono::milliseconds(1));
  }
  co_return true;
}

// --- zones: no driver has zoned devices ---

[[noreturn]] void no_zones(const char* what) {
  throw Failed{std::string(what) + " failed: " + Error::system(ENOTSUP).message()};
}

Task<bool> zone_report_command(Shell& shell, std::vector<std::string> line) {
  number(shell, line[1]);
  number(shell, line[2]);
  no_zones("zone report");
  co_return false;
}

Task<bool> zone_command(Shell& shell, std::vector<std::string> line) {
  number(shell, line[1]);
  number(shell, line[2]);
  std::string what = line[0];
  what[4] = ' ';
  no_zones(what.c_str());
  co_return false;
}

Task<bool> zone_append_command(Shell& shell, std::vector<std::string> line) {
  const Words words(line, "p");
  if (words.rest().size() < 2) throw WrongUsage{};
  for (const std::string& text : words.rest()) number(shell, text);
  no_zones("zone append");
  co_return false;
}

}  // namespace

std::vector<Command> other_commands() {
  return {
      {"abort", "", "", "simulate a program crash using abort(3)", "", 0, 0, false, false,
       abort_command},
      {"quit", "q", "", "exit the program", "", 0, -1, false, false, quit_command},
      {"help", "?", "[command]", "help for one or all commands", "", 0, 1, false, false,
       help_command},
      {"sleep", "", "", "waits for the given value in milliseconds", "", 1, 1, false, false,
       sleep_command},
      {"sigraise", "", "signal", "raises a signal",
       "\n For example 'sigraise 9' ends the program at once.\n\n", 1, 1, false, false,
       sigraise_command},
      {"break", "", "event tag", "sets a breakpoint on event and tags the stopped request as tag",
       "", 2, 2, true, false, break_command},
      {"remove_break", "", "tag", "remove a breakpoint by tag", "", 1, 1, true, false,
       remove_break_command},
      {"resume", "", "tag", "resumes the request tagged as tag", "", 1, 1, true, false,
       resume_command},
      {"wait_break", "", "tag", "waits for the suspension of a request", "", 1, 1, true, false,
       wait_break_command},
      {"zone_append", "zap", "offset len [len..]",
       "append write a number of bytes at a specified offset", "", 3, 4, true, true,
       zone_append_command},
      {"zone_close", "zc", "offset len", "close a range of zones in zone block device", "", 2, 2,
       true, true, zone_command},
      {"zone_finish", "zf", "offset len", "finish a range of zones in zone block device", "", 2, 2,
       true, true, zone_command},
      {"zone_open", "zo", "offset len", "explicit open a range of zones in zone block device", "",
       2, 2, true, true, zone_command},
      {"zone_report", "zrp", "offset number", "report zone information", "", 2, 2, true, false,
       zone_report_command},
      {"zone_reset", "zrs", "offset len", "reset a zone write pointer in zone block device", "", 2,
       2, true, true, zone_command},
  };
}

}  // namespace cairn::cli::io
