#include "control/service.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>

namespace cairn::control {
namespace {

constexpr int kFirstSocket = 3;
constexpr uint64_t kMostSockets = 1024;
constexpr uint64_t kMostWatchdog = uint64_t{365} * 24 * 3600 * 1'000'000;

std::string take_variable(const char* name) {
  const char* value = std::getenv(name);
  std::string text = value == nullptr ? "" : value;
  ::unsetenv(name);
  return text;
}

// Empty counts as 0.
uint64_t number_in(const std::string& text, const char* name, uint64_t most) {
  uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, number);
  if (!text.empty() && (error != std::errc() || at != end || number > most))
    invalid("The variable " + std::string(name) + " is no sensible number: '" + text + "'");
  return number;
}

// A variable that names a process is for that one only.
bool is_mine(const std::string& pid) { return pid == std::to_string(::getpid()); }

}  // namespace

ServiceVariables take_service_variables(daemon::DaemonOptions& options) {
  const std::string notify = take_variable("NOTIFY_SOCKET");
  const std::string watchdog = take_variable("WATCHDOG_USEC");
  const std::string watched = take_variable("WATCHDOG_PID");
  const bool is_watched = watched.empty() || is_mine(watched);
  const uint64_t limit = number_in(watchdog, "WATCHDOG_USEC", kMostWatchdog);
  if (!notify.empty())
    options.manager =
        daemon::ServiceManager(notify, std::chrono::microseconds(is_watched ? limit : 0));
  ServiceVariables said{.notify = notify, .watchdog = is_watched ? watchdog : ""};
  const std::string count_text = take_variable("LISTEN_FDS");
  const std::string owner = take_variable("LISTEN_PID");
  std::string names = take_variable("LISTEN_FDNAMES") + ":";
  if (!is_mine(owner)) return said;
  const uint64_t count = number_in(count_text, "LISTEN_FDS", kMostSockets);
  for (uint64_t i = 0; i < count; ++i) {
    const size_t colon = names.find(':');
    std::string name = names.substr(0, colon);
    if (colon != std::string::npos) names.erase(0, colon + 1);
    const int descriptor = kFirstSocket + static_cast<int>(i);
    if (::fcntl(descriptor, F_SETFD, FD_CLOEXEC) != 0)
      invalid("LISTEN_FDS promises a descriptor that is not open: " + std::to_string(descriptor));
    options.sockets.add(name.empty() ? "unknown" : std::move(name), descriptor);
  }
  return said;
}

}  // namespace cairn::control
