#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "async/cancel.h"
#include "async/runtime.h"
#include "async/sync.h"
#include "async/task.h"
#include "async/task_group.h"
#include "base/error.h"
#include "net/gate.h"
#include "platform/poll.h"

namespace cairn {

// One line to a server that is repaired when it breaks. Belongs to one worker, on which all of its
// methods are called. A protocol says how it connects, and when it tries again. A ConnectionClass
// is a PipelinedConnection with close(). Once the work is cancelled the server has a last moment to
// answer what is under way; after that the line is cut, and all calls throw kCancelled.
template <class ConnectionClass>
class RepairedLink {
 public:
  virtual ~RepairedLink() = default;
  Worker& worker() const { return worker_; }

  // Opens unless that was tried before. False when there is no connection to be had.
  Task<bool> open_once() {
    if (tried_ && opened_) co_return true;
    const auto guard = co_await opening_.lock();
    if (tried_) co_return opened_;
    note_attempt();
    try {
      co_await connect();
    } catch (const Error& error) {
      // The server may have set a limit: the other links do the work.
      reason_ = error.message();
    }
    co_return opened_;
  }

  // No connection is made any more; one that is there is used further.
  void stop_repairs() {
    closing_ = true;
    if (!stop_) return;
    stop_->open();
    arrived_->open();
  }

  Task<void> close() {
    stop_repairs();
    ended_ = true;
    if (asked_ >= 0) wake_waits(asked_);
    co_await background_.join();
    if (connection_) co_await connection_->close();
    connection_.reset();
  }

 protected:
  using ConnectionPtr = std::shared_ptr<ConnectionClass>;

  // CANCEL may be null, and outlives the link.
  RepairedLink(Worker& worker, const CancelSource* cancel) : worker_(worker), cancel_(cancel) {}

  // Connects, and calls use(). Throws.
  virtual Task<void> connect() = 0;

  // Ends what connect() waits for; it throws then.
  virtual void cut_attempt() {}
  // For the first attempt to open, which another method than open_once() makes.
  void note_attempt() {
    tried_ = true;
    if (cancel_ == nullptr) return;
    asked_ = cancel_->descriptor();
    background_.spawn(watch_cancellation());
  }
  // Between two attempts. Throws kCancelled as soon as the work is cancelled.
  Task<void> pause(std::chrono::nanoseconds time) {
    const auto until = CancelSource::Clock::now() + time;
    if (cancel_ == nullptr)
      co_await sleep_for(time);
    else
      co_await await_ready(asked_, POLLIN, until);
    if (cancel_ != nullptr) cancel_->check();
  }
  // Throws kCancelled once the line was cut.
  void check_cut() const {
    if (cut_) cancel_->check();
  }
  // What was connected is the connection from now on.
  void use(ConnectionPtr connection) {
    connection_ = std::move(connection);
    opened_ = true;
  }
  // CONNECTION has ended: false when that is known already. Else it is to be made again by a
  // background task, and requests that wait at arrived_ meanwhile.
  bool drop(const ConnectionPtr& connection) {
    if (connection_ != connection) return false;
    connection_.reset();
    reason_ = connection->reason();
    if (!connection->violation().empty()) fatal_ = connection->violation();
    if (!arrived_) {
      arrived_ = std::make_unique<Gate>();
      stop_ = std::make_unique<Gate>();
    }
    arrived_->shut();
    if (!fatal_.empty() || closing()) arrived_->open();
    return true;
  }
  // Whether no connection is to be made any more.
  bool closing() const { return closing_ || cut_; }
  const CancelSource* cancel() const { return cancel_; }

  ConnectionPtr connection_;
  std::string fatal_;   // why there will never be a connection again
  std::string reason_;  // why there is none
  // Since a connection was lost. arrived_: open while there is no use to wait; stop_: open when
  // repairs are to end.
  std::unique_ptr<Gate> arrived_, stop_;
  TaskGroup background_;

 private:
  static constexpr std::chrono::milliseconds kLastMoment{300};

  Task<void> watch_cancellation() {
    while (!ended_ && !cancel_->requested()) co_await await_ready(asked_, POLLIN);
    const auto until = cancel_->requested_at() + kLastMoment;
    while (!ended_ && CancelSource::Clock::now() < until) co_await await_ready(asked_, 0, until);
    if (ended_) co_return;
    cut_ = true;
    cut_attempt();
    if (connection_) connection_->abort();
    if (!stop_) co_return;
    stop_->open();
    arrived_->open();
  }

  Worker& worker_;
  const CancelSource* cancel_;
  int asked_ = -1;  // readable once the work is cancelled
  Mutex opening_;
  bool tried_ = false;
  bool opened_ = false;
  bool closing_ = false;
  bool ended_ = false;  // it is closed, or about to be
  bool cut_ = false;    // the work was cancelled
};

}  // namespace cairn
