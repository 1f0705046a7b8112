#include "protocol/sheepdog/link.h"

#include <algorithm>

#include "base/error.h"

namespace cairn::sheepdog {
namespace {

constexpr std::chrono::milliseconds kLongestConnect{10'000};
constexpr std::chrono::milliseconds kFirstPause{50};
constexpr std::chrono::milliseconds kLongestPause{1000};

}  // namespace

// How long one daemon may be silent: each of them has its turn before a request fails.
std::chrono::milliseconds Link::stall() const {
  return target_.timeout / static_cast<int>(target_.servers.size());
}

Task<void> Link::connect() {
  std::exception_ptr failure;
  for (size_t i = 0; i < target_.servers.size(); ++i) {
    const size_t number = (server_ + i) % target_.servers.size();
    try {
      const Deadline deadline = Clock::now() + std::min(stall(), kLongestConnect);
      Socket socket = co_await connect_socket(target_.servers[number], deadline, cancel());
      auto stream = std::make_unique<Stream>(std::move(socket));
      auto connection = std::make_shared<Connection>(std::move(stream), stall());
      connection->start();
      server_ = number;
      use(std::move(connection));
      co_return;
    } catch (const Error&) {
      failure = std::current_exception();
    }
    if (closing()) break;
  }
  std::rethrow_exception(failure);
}

Task<void> Link::open() {
  note_attempt();
  co_await connect();
}

Task<void> Link::perform(Operation& operation) {
  const auto patience = operation.patience.count() != 0 ? operation.patience : target_.timeout;
  const Deadline deadline = Clock::now() + patience;
  operation.sent = false;
  while (true) {
    check_cut();
    const std::shared_ptr<Connection> connection = connection_;
    if (connection) {
      const bool answered = co_await connection->perform(operation);
      if (answered) co_return;
      check_cut();
      lose(connection);
      if (operation.sent && !operation.repeatable && fatal_.empty())
        throw Error(
            ErrorKind::kIo,
            "the connection to the Sheepdog cluster was lost before the answer came: " + reason_)
            .hint("The daemon may have done it: look before it is tried again.");
      continue;
    }
    if (!fatal_.empty()) throw Error(ErrorKind::kIo, fatal_);
    if (closing() || Clock::now() >= deadline || !arrived_)
      throw Error(ErrorKind::kIo, "there is no connection to the Sheepdog cluster: " + reason_);
    co_await arrived_->wait(deadline);
  }
}

void Link::lose(const std::shared_ptr<Connection>& connection) {
  if (!drop(connection)) return;
  // One that has answered before is tried again at once.
  if (connection->has_answered()) pause_ = std::chrono::milliseconds(0);
  // It may have been silent rather than dead: the next one has its turn.
  server_ = (server_ + 1) % target_.servers.size();
  background_.spawn(reconnect(connection));
}

Task<void> Link::reconnect(std::shared_ptr<Connection> old) {
  const Reconnecting repair(target_.server);
  co_await old->close();
  old.reset();
  while (!closing() && fatal_.empty()) {
    if (pause_.count() != 0) co_await stop_->wait(Clock::now() + pause_);
    pause_ = std::clamp(pause_ * 2, kFirstPause, kLongestPause);
    if (closing()) break;
    try {
      co_await connect();
      break;
    } catch (const Error& error) {
      reason_ = error.message();
    }
  }
  if (connection_ && !locked_.empty()) co_await lock_again(connection_);
  // It may be lost again by now, and another repair be under way.
  if (connection_ || closing() || !fatal_.empty()) arrived_->open();
}

// A daemon keeps the lock of a client that comes back; another daemon may refuse it until the first
// one is known to be gone. Writes are possible all the same.
Task<void> Link::lock_again(std::shared_ptr<Connection> connection) {
  const std::vector<std::byte> name = name_data(locked_);
  Operation operation;
  operation.header = vdi_header(Opcode::kLockVdi, {});
  operation.data = name;
  const bool answered = co_await connection->perform(operation);
  // What follows the VDI to another number locks that then.
  const uint32_t got = operation.response.vdi;
  if (!answered || operation.response.result != Result::kSuccess || got == locked_vdi_) co_return;
  Operation release;
  release.header = vdi_header(Opcode::kReleaseVdi, {.vdi = got});
  static_cast<void>(co_await connection->perform(release));
}

}  // namespace cairn::sheepdog
