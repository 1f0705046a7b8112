#pragma once

#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "export/nbd/server.h"

namespace cairn::nbd::server {

// What a client and the server agreed on before transmission.
struct Agreement {
  ExportPtr exported;
  bool structured = false;
  bool extended = false;
  std::vector<uint32_t> contexts;  // ids, of this export
};

// One client. It belongs to the worker that serves it; only request_stop(), abort(),
// client_has_left() and the counters may be used from elsewhere.
class Connection {
 public:
  Connection(Server& server, Socket socket);
  Task<void> run();
  // Refuse what comes from now on, finish what is in flight, end.
  void request_stop();
  void abort() { stream_.abort(); }
  bool client_has_left() const { return stream_.peer_has_left(); }

  // What the server knows of it when memory is short: payload bytes that it holds, and how many of
  // its coroutines wait for the client.
  std::atomic<uint64_t> held{0};
  std::atomic<unsigned> on_socket{0};

  std::atomic<uint64_t> requests{0}, bytes_read{0}, bytes_written{0};

 private:
  friend class Server;
  // Of the server, under its mutex: when bytes were last seen to move.
  std::chrono::steady_clock::time_point progress_at_ = std::chrono::steady_clock::now();
  uint64_t progress_ = 0;
  bool makes_room_ = false;
  ExportPtr exported_;  // that it works with; null until then
  std::string host_;    // the peer without its port

  Server& server_;
  Stream stream_;
  std::string peer_;
};

// The options, from the greeting on; nothing when the client left or had to be dropped. Throws
// Error when the client broke the protocol or the connection broke.
Task<std::optional<Agreement>> negotiate(Server& server, Stream& stream);

}  // namespace cairn::nbd::server
