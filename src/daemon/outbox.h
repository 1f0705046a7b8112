#pragma once

#include <chrono>
#include <mutex>
#include <string>

#include "async/cancel.h"
#include "async/task.h"

namespace cairn::daemon {

// What waits to be sent to one client. post() is for any thread; the rest belongs to the worker of
// the client.
class Outbox {
 public:
  // A client that takes nothing is given up when so much waits for it.
  static constexpr size_t kMost = size_t{16} << 20;
  // While so much waits, no further request of the client is begun.
  static constexpr size_t kCrowded = size_t{256} << 10;

  // Appends TEXT to what waits. Nothing happens after the end.
  void post(std::string_view text);
  // All that waits, and nothing at the end; waits for something.
  Task<std::string> take();
  // Waits until less than kCrowded is left, or the end.
  Task<void> wait_for_room();
  // What waits is taken yet, then take() gives nothing.
  void finish();
  // take() gives nothing from now on.
  void abandon();

  bool empty() const;
  // More was posted than kMost.
  bool overflowed() const;

 private:
  // Something that one coroutine waits for and others report; from any thread.
  class Bell {
   public:
    Bell();
    ~Bell();
    Bell(const Bell&) = delete;
    void ring();
    Task<void> wait();

   private:
    int fd_;
  };
  mutable std::mutex mutex_;
  std::string waiting_;
  bool over_ = false;
  bool overflowed_ = false;
  Bell filled_, taken_;
};

}  // namespace cairn::daemon
