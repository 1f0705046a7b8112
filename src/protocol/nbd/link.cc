#include "protocol/nbd/link.h"

#include <algorithm>
#include <cerrno>

#include "base/error.h"

namespace cairn::nbd::client {
namespace {

using Clock = std::chrono::steady_clock;

// A server that has not finished the handshake by then is none.
constexpr std::chrono::seconds kHandshake{30};
constexpr std::chrono::seconds kLongestPause{16};

}  // namespace

Task<void> Link::connect() {
  const Deadline deadline = Clock::now() + std::max(kHandshake, target_.open_timeout);
  Socket socket = co_await connect_socket(target_.address, deadline, cancel());
  auto stream = std::make_unique<Stream>(std::move(socket));
  stream->set_deadline(deadline);
  attempt_ = stream.get();
  Agreement agreed;
  std::exception_ptr error;
  try {
    if (closing()) throw Error::system(ECANCELED);
    agreed = co_await shake_hands(*stream, target_.wish);
    accept_(agreed);
  } catch (...) {
    error = std::current_exception();
  }
  attempt_ = nullptr;
  check_cut();
  if (error) std::rethrow_exception(error);
  stream->set_deadline(kNoDeadline);
  auto connection = std::make_shared<Connection>(std::move(stream), agreed);
  connection->start();
  use(std::move(connection));
}

Task<void> Link::open() {
  const Deadline until = Clock::now() + target_.open_timeout;
  std::chrono::milliseconds wait{50};
  note_attempt();
  while (true) {
    std::exception_ptr failure;
    try {
      co_await connect();
      co_return;
    } catch (const Error& error) {
      const bool ends =
          error.kind() == ErrorKind::kInvalid || error.kind() == ErrorKind::kCancelled;
      if (ends || Clock::now() >= until) throw;
      failure = std::current_exception();
    }
    co_await pause(std::min<std::chrono::nanoseconds>(wait, until - Clock::now()));
    wait = std::min(wait * 2, std::chrono::milliseconds(1000));
  }
}

Task<void> Link::perform(Operation& operation) {
  while (true) {
    check_cut();
    const std::shared_ptr<Connection> connection = connection_;
    if (connection && !closing()) {
      const bool answered = co_await connection->perform(operation);
      if (answered) {
        // A server that goes down wants to be left.
        if (operation.error == ESHUTDOWN) connection->abort();
        co_return;
      }
      lose(connection);
      continue;
    }
    if (!fatal_.empty()) throw Error(ErrorKind::kIo, fatal_);
    if (closing() || Clock::now() >= give_up_)
      throw Error(ErrorKind::kIo, "there is no connection to the NBD server: " + reason_);
    co_await arrived_->wait(give_up_);
  }
}

void Link::lose(const std::shared_ptr<Connection>& connection) {
  if (!drop(connection)) return;
  give_up_ = Clock::now() + target_.reconnect_delay;
  background_.spawn(reconnect(connection));
}

Task<void> Link::reconnect(std::shared_ptr<Connection> old) {
  const Reconnecting repair(target_.server);
  co_await old->close();
  old.reset();
  std::chrono::seconds pause{1};
  while (!closing() && fatal_.empty()) {
    try {
      co_await connect();
      break;
    } catch (const Error& error) {
      reason_ = error.message();
      if (error.kind() == ErrorKind::kInvalid) fatal_ = error.message();
    }
    if (!fatal_.empty() || closing()) break;
    co_await stop_->wait(Clock::now() + pause);
    pause = std::min(pause * 2, kLongestPause);
  }
  arrived_->open();
}

void Link::cut_attempt() {
  if (attempt_ != nullptr) attempt_->abort();
}

Task<void> Link::close() {
  stop_repairs();
  cut_attempt();
  co_await RepairedLink::close();
}

}  // namespace cairn::nbd::client
