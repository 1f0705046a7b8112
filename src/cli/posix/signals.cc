#include "cli/signals.h"

#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "base/unfinished.h"
#include "platform/terminal.h"

namespace cairn::cli {
namespace {

// From the first signal to the end.
std::atomic<suseconds_t> grace_microseconds{700'000};

CancelSource cancellation;
volatile std::sig_atomic_t first_signal = 0;
std::atomic<bool> takes_time{false}, while_servers_answer{false};
const char* program_name = "cairn";

void on_interrupt(int signal) {
  const int before = errno;
  first_signal = signal;
  cancellation.request();
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  ::sigaction(signal, &action, nullptr);
  if (!takes_time.load()) {
    const itimerval grace = {.it_interval = {}, .it_value = {0, grace_microseconds.load()}};
    ::setitimer(ITIMER_REAL, &grace, nullptr);
  }
  errno = before;
}

void tell(const char* text) {
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text, std::strlen(text));
}

[[noreturn]] void end(const char* why) {
  platform::restore_terminal();
  if (::isatty(STDERR_FILENO) == 1) tell("\n");
  tell(program_name);
  tell(": ");
  tell(why);
  tell("\n");
  Unfinished::abandon_all(STDERR_FILENO);
  ::_exit(128 + first_signal);
}

// A handler, so that it works whatever the threads are held up by.
void on_grace_over(int) {
  if (!takes_time.load()) end("cancelled");
}

}  // namespace

CancelSource& catch_signals(const char* program) {
  program_name = program;
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(signal, &action, nullptr);
  action.sa_handler = on_grace_over;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGALRM, &action, nullptr);
  action.sa_handler = SIG_IGN;
  for (const int signal : {SIGPIPE, SIGXFSZ}) ::sigaction(signal, &action, nullptr);
  return cancellation;
}

int interrupted_by() { return first_signal; }

void take_this_long_to_end(std::chrono::milliseconds limit) {
  grace_microseconds.store(std::chrono::microseconds(limit).count());
}

void take_time_to_end() { takes_time.store(true); }

void take_time_while_servers_answer() {
  while_servers_answer.store(true);
  take_time_to_end();
}

bool waits_for_servers() { return first_signal != 0 && while_servers_answer.load(); }

void end_at_once(const std::string& why) { end(why.c_str()); }

}  // namespace cairn::cli
