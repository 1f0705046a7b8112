#include "cli/signals.h"

#include <io.h>

#include <atomic>
#include <csignal>
#include <cstring>

#include "base/unfinished.h"
#include "platform/terminal.h"
#include "platform/windows/descriptors.h"

namespace cairn::cli {
namespace {

// From the first request to the end.
std::atomic<DWORD> grace_milliseconds{700};
constexpr int kError = 2;

CancelSource cancellation;
std::atomic<int> first_signal{0};
std::atomic<bool> takes_time{false}, while_servers_answer{false};
const char* program_name = "cairn";

void tell(const char* text) {
  [[maybe_unused]] const int written =
      ::_write(kError, text, static_cast<unsigned>(std::strlen(text)));
}

[[noreturn]] void end(const char* why) {
  platform::restore_terminal();
  tell(program_name);
  tell(": ");
  tell(why);
  tell("\n");
  Unfinished::abandon_all(kError);
  ::ExitProcess(static_cast<UINT>(128 + first_signal.load()));
}

// Windows calls this on a thread of its own. A window that closes, or a user who leaves, ends the
// program as soon as this returns.
BOOL WINAPI on_event(DWORD event) {
  const int signal = event == CTRL_C_EVENT || event == CTRL_BREAK_EVENT ? SIGINT : SIGTERM;
  if (first_signal.exchange(signal) != 0) end("cancelled");
  cancellation.request();
  if (!takes_time.load() || signal == SIGTERM) {
    ::Sleep(grace_milliseconds.load());
    if (!takes_time.load() || signal == SIGTERM) end("cancelled");
  }
  return TRUE;
}

}  // namespace

CancelSource& catch_signals(const char* program) {
  program_name = program;
  ::SetConsoleCtrlHandler(on_event, TRUE);
  return cancellation;
}

int interrupted_by() { return first_signal.load(); }

void take_this_long_to_end(std::chrono::milliseconds limit) {
  grace_milliseconds.store(static_cast<DWORD>(limit.count()));
}

void take_time_to_end() { takes_time.store(true); }

void take_time_while_servers_answer() {
  while_servers_answer.store(true);
  take_time_to_end();
}

bool waits_for_servers() { return first_signal.load() != 0 && while_servers_answer.load(); }

void end_at_once(const std::string& why) { end(why.c_str()); }

}  // namespace cairn::cli
