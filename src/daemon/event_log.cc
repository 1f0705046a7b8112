#include "daemon/event_log.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>

#include "base/error.h"

namespace cairn::daemon {
namespace {

using namespace std::chrono_literals;

// "2026-01-31T12:00:00.123456Z".
std::string utc_now() {
  struct timespec now {};
  ::clock_gettime(CLOCK_REALTIME, &now);
  struct tm parts {};
  ::gmtime_r(&now.tv_sec, &parts);
  std::array<char, 32> seconds{};
  std::array<char, 32> fraction{};
  const size_t length = ::strftime(seconds.data(), seconds.size(), "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(fraction.data(), fraction.size(), ".%06ldZ", now.tv_nsec / 1000);
  return std::string(seconds.data(), length) + fraction.data();
}

}  // namespace

EventLog::EventLog(const std::string& path, int standard)
    : fd_(path == "-" ? ::fcntl(standard, F_DUPFD_CLOEXEC, 3)
                      : ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640)) {
  if (fd_ < 0) throw Error::system(errno, "Could not open the log '" + path + "'");
}

EventLog::~EventLog() { ::close(fd_); }

void EventLog::write(std::string_view level, std::string_view event, const Value& members) {
  Value line = Value::object();
  line.set("time", utc_now());
  line.set("level", level);
  line.set("event", event);
  for (const auto& [name, value] : *members.get_if<Value::Object>()) line.set(name, value);
  const std::string text = line.compact() + "\n";
  std::lock_guard lock(mutex_);
  [[maybe_unused]] const ssize_t written = ::write(fd_, text.data(), text.size());
}

void EventLog::write_seldom(const std::string& source, std::string_view level,
                            std::string_view event, Value members) {
  {
    std::lock_guard lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    const auto [last, first] = last_.try_emplace(source, Last{now, 0});
    if (!first && now - last->second.time < 1s) {
      ++last->second.left_out;
      return;
    }
    if (last->second.left_out != 0) members.set("more", last->second.left_out);
    last->second = {now, 0};
  }
  write(level, event, members);
}

Value event_members(std::string_view name, const Value& value) {
  Value members = Value::object();
  members.set(name, value);
  return members;
}

}  // namespace cairn::daemon
