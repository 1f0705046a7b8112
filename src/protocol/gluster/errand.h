#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <coroutine>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "async/task.h"
#include "protocol/byte_stock.h"

namespace cairn {
class CancelSource;
class Worker;
}  // namespace cairn

namespace cairn::gluster {

// Something that the library is asked to do. It may answer late or never, on a thread of its own,
// so that what it uses belongs to the errand, and what waits may end before.
class Errand {
 public:
  // BYTES: of the buffer.
  explicit Errand(size_t bytes = 0) : buffer(bytes), vector{buffer.span().data(), bytes} {}
  Errand(const Errand&) = delete;

  // The answer; the first one counts. From any thread.
  void settle(ssize_t result, int error);
  // What the library returned, and errno when that is negative; of who waited, afterwards.
  ssize_t result() const { return result_; }
  int error() const { return error_; }

  ByteStock::Bytes buffer;
  const iovec vector;  // all of the buffer

 private:
  friend class Watch;
  std::atomic<bool> over_{false};
  ssize_t result_ = -1;
  int error_ = 0;
  std::chrono::steady_clock::time_point deadline_;
  const CancelSource* cancel_ = nullptr;
  Worker* worker_ = nullptr;
  std::coroutine_handle<> handle_;
};
using ErrandPtr = std::shared_ptr<Errand>;

// Looks after errands: one that has no answer in time ends with ETIMEDOUT, and all with ECANCELED
// when the work is cancelled.
class Watch {
 public:
  using Start = std::function<int(void* data)>;

  Watch() = default;
  Watch(const Watch&) = delete;
  // No errand is under way any more.
  ~Watch();

  // Calls START, which gives the library the DATA to give back to answer(), and waits. A negative
  // result of START is the answer. From any worker.
  Task<void> send(ErrandPtr errand, Start start, std::chrono::seconds most,
                  const CancelSource* cancel);
  // The same for WORK, which blocks and is done on a thread of its own. It owns what it uses.
  Task<void> call(ErrandPtr errand, std::function<ssize_t()> work, std::chrono::seconds most,
                  const CancelSource* cancel);
  // The library has done what DATA stands for. On its thread; ERROR is errno.
  static void answer(void* data, ssize_t result, int error);

 private:
  struct Waiting;
  void add(const ErrandPtr& errand);
  void work();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<ErrandPtr> errands_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace cairn::gluster
