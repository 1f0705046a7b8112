#pragma once

#include <memory>
#include <string>

#include "async/sync.h"
#include "async/task.h"
#include "async/task_group.h"
#include "base/error.h"
#include "net/gate.h"

namespace cairn {

class Worker;

// One line to a server that is repaired when it breaks. Belongs to one worker, on which all of its
// methods are called. A protocol says how it connects, and when it tries again. A ConnectionClass
// is a PipelinedConnection with close().
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
    tried_ = true;
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
    co_await background_.join();
    if (connection_) co_await connection_->close();
    connection_.reset();
  }

 protected:
  using ConnectionPtr = std::shared_ptr<ConnectionClass>;

  explicit RepairedLink(Worker& worker) : worker_(worker) {}

  // Connects, and calls use(). Throws.
  virtual Task<void> connect() = 0;

  // For the first attempt to open, which another method than open_once() makes.
  void note_attempt() { tried_ = true; }
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
    if (!fatal_.empty() || closing_) arrived_->open();
    return true;
  }
  bool closing() const { return closing_; }

  ConnectionPtr connection_;
  std::string fatal_;   // why there will never be a connection again
  std::string reason_;  // why there is none
  // Since a connection was lost. arrived_: open while there is no use to wait; stop_: open when
  // repairs are to end.
  std::unique_ptr<Gate> arrived_, stop_;
  TaskGroup background_;

 private:
  Worker& worker_;
  Mutex opening_;
  bool tried_ = false;
  bool opened_ = false;
  bool closing_ = false;
};

}  // namespace cairn
