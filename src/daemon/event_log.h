#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "base/value.h"

namespace cairn::daemon {

// What happens to a daemon, for programs: a line of JSON for each event, with the members "time"
// (UTC), "level", "event" and those of the event. From any thread.
class EventLog {
 public:
  // Appends to the file PATH, which is made when it is missing; "-" is a copy of the
  // descriptor STANDARD. Throws what the system says.
  EventLog(const std::string& path, int standard);
  ~EventLog();
  EventLog(const EventLog&) = delete;

  // LEVEL: "info", "warning" or "error". What cannot be written is lost.
  void write(std::string_view level, std::string_view event, const Value& members);
  // The same for what may happen very often: one line a second for each SOURCE, with the number of
  // those that were left out as "more".
  void write_seldom(const std::string& source, std::string_view level, std::string_view event,
                    Value members);

 private:
  struct Last {
    std::chrono::steady_clock::time_point time;
    uint64_t left_out = 0;
  };
  int fd_;
  std::mutex mutex_;
  std::map<std::string, Last> last_;  // by source
};

// Something with its name as one object.
Value event_members(std::string_view name, const Value& value);

}  // namespace cairn::daemon
