#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "async/async.h"
#include "block/context.h"
#include "export/nbd/memory.h"
#include "export/nbd/nbd_export.h"
#include "net/authz.h"
#include "net/stream.h"
#include "net/tls.h"

namespace cairn::nbd::server {

class Connection;

struct ServerOptions {
  std::vector<ExportPtr> exports;
  // The empty name stands for the first export also where that one has a name.
  bool first_is_default = false;
  std::shared_ptr<const TlsCredentials> tls;  // set: nothing is served in clear
  // Who may come in, asked with the name that TLS proved, when `authorize` is set.
  std::shared_ptr<const Authorization> authorization;
  bool authorize = false;
  unsigned max_clients = 0;  // 0: as many as come; more wait in the backlog without a greeting
  std::chrono::seconds handshake_limit{10};  // 0: none
  uint64_t memory = ServerMemory::kUsual;    // for payloads of all clients; at least kLeast
  bool persistent = true;  // false: ends when the last client that began to work has left
  // A line for people about a client, without a newline; from any worker.
  std::function<void(std::string_view)> log;
  // A client begins to work with an export (CAME), or has left; from any worker.
  std::function<void(const Export& exported, const std::string& peer, bool came)> on_client;
};

// What a server has done so far.
struct ServerStatistics {
  unsigned clients = 0;  // at work now
  uint64_t requests = 0, bytes_read = 0, bytes_written = 0;
};

// An NBD server: fixed newstyle, structured replies, extended headers, TLS. Each connection lives
// on one worker and runs its requests side by side, in bounded memory; connections are spread over
// the workers. What a client does wrong ends its own connection at worst.
class Server {
 public:
  Server(Context& context, ServerOptions options);
  ~Server();

  // Accepts and serves until STOP is requested (or, when not persistent, the last client left):
  // then new requests are refused, those in flight are finished and answered, connections that do
  // not end in time are broken off, and all exports are flushed. Called once, on any worker. Throws
  // what flushing said.
  Task<void> run(std::vector<Socket> listeners, CancelSource& stop);
  // Serves one connection on the current worker, from the greeting to the end; never throws.
  Task<void> serve(Socket socket);

  ServerStatistics statistics() const;
  const ServerOptions& options() const { return options_; }
  // Null when there is none.
  ExportPtr find(std::string_view name) const;
  std::vector<ExportPtr> exports() const;
  // --- while it runs; from any thread ---
  void add(ExportPtr exported);
  // No client finds it any more; those that have it keep it.
  void remove(const Export& exported);
  unsigned clients_of(const Export& exported) const;
  // Of these, those that have closed their side: their connections are about to end.
  unsigned leaving_clients_of(const Export& exported) const;
  // Breaks off the connections of all that have it.
  void drop_clients_of(const Export& exported);
  bool stopping() const { return stopping_.load(std::memory_order_relaxed); }
  void log(const std::string& line) const;
  ServerMemory& memory() { return memory_; }
  // Memory is short: breaks off the connection that holds most of it while its client does not
  // take or send anything for a while, if there is one.
  void drop_stalled();

 private:
  friend class Connection;
  Task<void> accept_on(const Socket& listener, TaskGroup& clients);
  Task<void> serve_on_worker(Socket socket);
  Task<void> drain();
  void began_work(Connection& connection, ExportPtr exported);
  Task<void> wait_for_place();
  bool make_room();
  Worker& quietest_worker();

  Context& context_;
  ServerOptions options_;
  std::atomic<unsigned> places_{0};  // taken
  ServerMemory memory_;
  std::atomic<bool> stopping_{false};
  CancelSource* stop_ = nullptr;
  std::vector<std::atomic<unsigned>> load_;  // connections of each worker
  mutable std::mutex mutex_;
  std::set<Connection*> connections_;
  std::vector<Connection*> half_open_;  // oldest first; not those that make room
  std::vector<ExportPtr> exports_;
  unsigned working_ = 0;
  unsigned leaving_ = 0;   // broken off to make room, and not gone yet
  ServerStatistics past_;  // of connections that have ended
};

}  // namespace cairn::nbd::server
