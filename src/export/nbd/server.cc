#include "export/nbd/server.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "export/nbd/connection.h"
#include "export/nbd/session.h"

namespace cairn::nbd {
namespace {

using namespace std::chrono_literals;

// How long clients may take to fetch their last replies when the server ends.
constexpr auto kDrainTime = 5s;
// Connections that have not yet agreed on anything.
constexpr unsigned kMostHandshakes = 100;

}  // namespace

// --- Connection ---

Connection::Connection(Server& server, Socket socket)
    : server_(server), stream_(std::move(socket)) {
  const int on = 1;
  ::setsockopt(stream_.socket().fd(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  peer_ = stream_.socket().peer_text();
}

void Connection::request_stop() { stream_.stop_reading(); }

Task<void> Connection::run() {
  bool worked = false;
  bool shaking = true;
  std::string trouble;
  try {
    const auto limit = server_.options().handshake_limit;
    if (limit.count() != 0) stream_.set_deadline(std::chrono::steady_clock::now() + limit);
    std::optional<Agreement> agreement = co_await negotiate(server_, stream_);
    if (agreement) {
      stream_.set_deadline(kNoDeadline);
      server_.handshakes_.release();
      shaking = false;
      worked = true;
      server_.began_work();
      Session session(server_, *this, stream_, std::move(*agreement));
      co_await session.run();
    }
    co_await stream_.finish();
  } catch (const Error& error) {
    trouble = error.message();
  } catch (const std::exception& error) {
    trouble = error.what();
  }
  if (shaking) server_.handshakes_.release();
  if (!trouble.empty() && !server_.stopping())
    server_.log("client " + peer_ + ": " + printable(trouble));
  std::lock_guard lock(server_.mutex_);
  server_.connections_.erase(this);
  server_.past_.requests += requests.load();
  server_.past_.bytes_read += bytes_read.load();
  server_.past_.bytes_written += bytes_written.load();
  if (worked && --server_.working_ == 0 && !server_.options_.persistent) server_.stop_->request();
}

// --- Server ---

Server::Server(Context& context, ServerOptions options)
    : context_(context),
      options_(std::move(options)),
      slots_(options_.max_clients == 0 ? UINT32_MAX : options_.max_clients),
      handshakes_(kMostHandshakes),
      load_(context.runtime().worker_count()) {}

Server::~Server() = default;

void Server::log(const std::string& line) const {
  if (options_.log) options_.log(line);
}

const Export* Server::find(std::string_view name) const {
  for (const auto& exported : options_.exports)
    if (exported->name() == name) return exported.get();
  if (name.empty() && options_.first_is_default && !options_.exports.empty())
    return options_.exports.front().get();
  return nullptr;
}

ServerStatistics Server::statistics() const {
  std::lock_guard lock(mutex_);
  ServerStatistics sum = past_;
  sum.clients = working_;
  for (const Connection* connection : connections_) {
    sum.requests += connection->requests.load(std::memory_order_relaxed);
    sum.bytes_read += connection->bytes_read.load(std::memory_order_relaxed);
    sum.bytes_written += connection->bytes_written.load(std::memory_order_relaxed);
  }
  return sum;
}

void Server::began_work() {
  std::lock_guard lock(mutex_);
  ++working_;
}

Worker& Server::quietest_worker() {
  unsigned best = 0;
  for (unsigned i = 1; i < load_.size(); ++i)
    if (load_[i] < load_[best]) best = i;
  ++load_[best];
  return context_.runtime().worker(best);
}

Task<void> Server::serve(Socket socket) {
  co_await handshakes_.acquire();
  Connection connection(*this, std::move(socket));
  {
    std::lock_guard lock(mutex_);
    connections_.insert(&connection);
  }
  // One that came while the server was told to end may have been overlooked.
  if (stopping()) connection.request_stop();
  co_await connection.run();
}

Task<void> Server::serve_on_worker(Socket socket) {
  const unsigned index = Worker::current()->index();
  co_await serve(std::move(socket));
  --load_[index];
  slots_.release();
}

Task<void> Server::accept_on(const Socket& listener, TaskGroup& clients) {
  while (!stopping()) {
    // The slot comes second: listeners without clients must not hold the last ones.
    co_await await_ready(listener.fd(), POLLIN);
    co_await slots_.acquire();
    Socket socket;
    if (!stopping()) socket = try_accept(listener);
    if (!socket) {
      slots_.release();
      // Out of descriptors: somebody must leave first; the connection waits in the backlog.
      if (!stopping() && errno != EAGAIN) co_await sleep_for(50ms);
      continue;
    }
    Worker& worker = quietest_worker();
    clients.spawn_on(worker, serve_on_worker(std::move(socket)));
  }
}

// Waits for connections to end, then breaks off those that do not.
Task<void> Server::drain() {
  const auto until = std::chrono::steady_clock::now() + kDrainTime;
  while (true) {
    {
      std::lock_guard lock(mutex_);
      if (connections_.empty()) co_return;
      if (std::chrono::steady_clock::now() >= until)
        for (Connection* connection : connections_) connection->abort();
    }
    co_await sleep_for(10ms);
  }
}

Task<void> Server::run(std::vector<Socket> listeners, CancelSource& stop) {
  stop_ = &stop;
  TaskGroup clients;
  TaskGroup acceptors;
  for (const Socket& listener : listeners) acceptors.spawn(accept_on(listener, clients));
  std::exception_ptr error;
  try {
    co_await await_ready(stop.descriptor(), POLLIN);
  } catch (...) {
    error = std::current_exception();
  }
  stopping_ = true;
  for (const Socket& listener : listeners) wake_waits(listener.fd());
  {
    std::lock_guard lock(mutex_);
    for (Connection* connection : connections_) connection->request_stop();
  }
  co_await drain();
  co_await acceptors.join();
  co_await clients.join();
  for (const auto& exported : options_.exports) {
    try {
      if (exported->writable()) co_await exported->node().flush();
    } catch (...) {
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace cairn::nbd
