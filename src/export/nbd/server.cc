#include "export/nbd/server.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <string_view>

#include "base/error.h"
#include "export/nbd/connection.h"
#include "export/nbd/session.h"
#include "platform/socket.h"

namespace cairn::nbd::server {
namespace {

using namespace std::chrono_literals;

// How long clients may take to fetch their last replies when the server ends.
constexpr auto kDrainTime = 700ms;
// Connections that have not yet agreed on anything.
constexpr size_t kMostHandshakes = 100;
// A client that does not move a byte for so long, while others wait for memory that it holds, goes.
constexpr auto kStallTime = 3s;

}  // namespace

// --- Connection ---

Connection::Connection(Server& server, Socket socket)
    : server_(server), stream_(std::move(socket)) {
  platform::set_keep_alive(stream_.socket().fd());
  peer_ = stream_.socket().peer_text();
  host_ = peer_.substr(0, peer_.rfind(':'));
}

void Connection::request_stop() { stream_.stop_reading(); }

Task<void> Connection::run() {
  bool worked = false;
  std::string trouble;
  try {
    const auto limit = server_.options().handshake_limit;
    if (limit.count() != 0) stream_.set_deadline(std::chrono::steady_clock::now() + limit);
    std::optional<Agreement> agreement = co_await negotiate(server_, stream_);
    if (agreement) {
      stream_.set_deadline(kNoDeadline);
      server_.began_work(*this, agreement->exported);
      worked = true;
      if (server_.options().on_client) server_.options().on_client(*exported_, peer_, true);
      Session session(server_, *this, stream_, std::move(*agreement));
      co_await session.run();
    }
    co_await stream_.finish();
  } catch (const Error& error) {
    trouble = error.message();
  } catch (const std::exception& error) {
    trouble = error.what();
  }
  if (!trouble.empty() && !server_.stopping())
    server_.log(fmt::format("client {}: {}", peer_, printable(trouble)));
  if (worked && server_.options().on_client) server_.options().on_client(*exported_, peer_, false);
  std::lock_guard lock(server_.mutex_);
  server_.connections_.erase(this);
  std::erase(server_.half_open_, this);
  if (makes_room_) --server_.leaving_;
  server_.past_.requests += requests.load();
  server_.past_.bytes_read += bytes_read.load();
  server_.past_.bytes_written += bytes_written.load();
  if (worked && --server_.working_ == 0 && !server_.options_.persistent) server_.stop_->request();
}

// --- Server ---

Server::Server(Context& context, ServerOptions options)
    : context_(context),
      options_(std::move(options)),
      memory_(std::max(options_.memory, ServerMemory::kLeast)),
      load_(context.runtime().worker_count()),
      exports_(std::move(options_.exports)) {}

Server::~Server() = default;

void Server::log(const std::string& line) const {
  if (options_.log) options_.log(line);
}

ExportPtr Server::find(std::string_view name) const {
  std::lock_guard lock(mutex_);
  for (const auto& exported : exports_)
    if (exported->name() == name) return exported;
  if (name.empty() && options_.first_is_default && !exports_.empty()) return exports_.front();
  return nullptr;
}

std::vector<ExportPtr> Server::exports() const {
  std::lock_guard lock(mutex_);
  return exports_;
}

void Server::add(ExportPtr exported) {
  std::lock_guard lock(mutex_);
  exports_.push_back(std::move(exported));
}

void Server::remove(const Export& exported) {
  std::lock_guard lock(mutex_);
  std::erase_if(exports_, [&](const ExportPtr& one) { return one.get() == &exported; });
}

unsigned Server::clients_of(const Export& exported) const {
  std::lock_guard lock(mutex_);
  return static_cast<unsigned>(
      std::count_if(connections_.begin(), connections_.end(),
                    [&](const Connection* one) { return one->exported_.get() == &exported; }));
}

unsigned Server::leaving_clients_of(const Export& exported) const {
  std::lock_guard lock(mutex_);
  return static_cast<unsigned>(
      std::count_if(connections_.begin(), connections_.end(), [&](const Connection* one) {
        return one->exported_.get() == &exported && one->client_has_left();
      }));
}

void Server::drop_clients_of(const Export& exported) {
  std::lock_guard lock(mutex_);
  for (Connection* connection : connections_)
    if (connection->exported_.get() == &exported) connection->abort();
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

void Server::began_work(Connection& connection, ExportPtr exported) {
  std::lock_guard lock(mutex_);
  if (std::find(exports_.begin(), exports_.end(), exported) == exports_.end())
    throw Error(ErrorKind::kNotFound, "the export was removed");
  connection.exported_ = std::move(exported);
  std::erase(half_open_, &connection);
  ++working_;
}

// Clients that begin and do not continue must not keep others out: where they take all places, the
// oldest one of the address that has most of them goes.
// False when no client can go.
bool Server::make_room() {
  std::lock_guard lock(mutex_);
  if (leaving_ != 0) return true;
  if (half_open_.size() < 2) return false;
  std::map<std::string_view, unsigned> counts;
  for (const Connection* one : half_open_) ++counts[one->host_];
  const auto most =
      std::max_element(counts.begin(), counts.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  const auto oldest =
      std::find_if(half_open_.begin(), half_open_.end(),
                   [&](const Connection* one) { return one->host_ == most->first; });
  (*oldest)->makes_room_ = true;
  ++leaving_;
  (*oldest)->abort();
  half_open_.erase(oldest);
  return true;
}

// Returns when a client more may come in; the place is taken.
Task<void> Server::wait_for_place() {
  const unsigned most = options_.max_clients == 0 ? UINT32_MAX : options_.max_clients;
  while (true) {
    unsigned taken = places_.load();
    bool crowded = false;
    {
      std::lock_guard lock(mutex_);
      crowded = half_open_.size() + leaving_ >= kMostHandshakes;
    }
    if (taken < most && !crowded && places_.compare_exchange_strong(taken, taken + 1)) co_return;
    if (stopping()) break;
    const bool soon = make_room();
    co_await sleep_for(soon ? 1ms : 20ms);
  }
  ++places_;
}

void Server::drop_stalled() {
  const auto now = std::chrono::steady_clock::now();
  std::lock_guard lock(mutex_);
  Connection* most = nullptr;
  for (Connection* one : connections_) {
    const uint64_t moved = one->stream_.moved();
    if (moved != one->progress_ || one->on_socket.load() == 0) {
      one->progress_ = moved;
      one->progress_at_ = now;
    }
    if (one->held.load() == 0 || now - one->progress_at_ < kStallTime) continue;
    if (most == nullptr || one->held.load() > most->held.load()) most = one;
  }
  if (most == nullptr) return;
  log(fmt::format("client {}: dropped: it holds {} KiB that others need, and takes no data",
                  most->peer_, most->held.load() >> 10));
  most->abort();
  most->progress_at_ = now;
}

Worker& Server::quietest_worker() {
  unsigned best = 0;
  for (unsigned i = 1; i < load_.size(); ++i)
    if (load_[i] < load_[best]) best = i;
  ++load_[best];
  return context_.runtime().worker(best);
}

Task<void> Server::serve(Socket socket) {
  Connection connection(*this, std::move(socket));
  {
    std::lock_guard lock(mutex_);
    connections_.insert(&connection);
    half_open_.push_back(&connection);
  }
  // One that came while the server was asked to end may have been overlooked.
  if (stopping()) connection.request_stop();
  co_await connection.run();
}

Task<void> Server::serve_on_worker(Socket socket) {
  const unsigned index = Worker::current()->resident_index().value();
  co_await serve(std::move(socket));
  --load_[index];
  --places_;
}

Task<void> Server::accept_on(const Socket& listener, TaskGroup& clients) {
  while (!stopping()) {
    // The slot comes second: listeners without clients must not hold the last ones.
    co_await await_ready(listener.fd(), POLLIN);
    co_await wait_for_place();
    Socket socket;
    if (!stopping()) socket = try_accept(listener);
    if (!socket) {
      --places_;
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
  for (const auto& exported : exports()) {
    try {
      if (exported->writable()) co_await exported->node().flush();
    } catch (...) {
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace cairn::nbd::server
