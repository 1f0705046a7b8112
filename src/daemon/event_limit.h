#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "async/task.h"
#include "base/value.h"

namespace cairn::daemon {

// Holds back events that may come with every request: of those with the same key one is sent a
// second, the first at once, and then the last of those that came meanwhile.
class EventLimit {
 public:
  using Send = std::function<void(const Value& event)>;
  explicit EventLimit(Send send);
  ~EventLimit();
  EventLimit(const EventLimit&) = delete;

  // From any thread.
  void post(const std::string& key, Value event);
  // Sends what was held back, until stop(). On one worker.
  Task<void> run();
  // What is held back is dropped. From any thread.
  void stop();

 private:
  using Clock = std::chrono::steady_clock;
  struct State {
    Clock::time_point next;  // no event before
    std::optional<Value> waiting;
  };
  Clock::time_point send_due();
  void ring() const;

  const Send send_;
  const int bell_;  // an event descriptor
  std::mutex mutex_;
  std::map<std::string, State> states_;
  bool stopped_ = false;
};

}  // namespace cairn::daemon
