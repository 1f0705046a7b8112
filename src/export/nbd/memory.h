#pragma once

#include <cstdint>
#include <deque>
#include <mutex>

namespace cairn::nbd::server {

// The memory for payloads of a whole server: what all connections hold together is bounded. Who
// finds none takes a ticket and asks again; first come, first served. From any worker.
class ServerMemory {
 public:
  // A server with less could not answer the longest request.
  static constexpr uint64_t kLeast = uint64_t{64} << 20;
  static constexpr uint64_t kUsual = uint64_t{256} << 20;

  // An eighth is for buffers that wait for their next use.
  explicit ServerMemory(uint64_t most) : free_(most - most / 8), spare_(most / 8) {}

  // True: BYTES are the caller's until release(). False when others wait or too little is free.
  bool take_now(uint64_t bytes);
  uint64_t queue();
  // The same for who has a ticket, which is used up with success.
  bool take(uint64_t ticket, uint64_t bytes);
  // Gives a ticket back.
  void leave(uint64_t ticket);
  void release(uint64_t bytes);

  // Whether a buffer may be kept for later; let_go() takes it back.
  bool keep(uint64_t bytes);
  void let_go(uint64_t bytes);

 private:
  std::mutex mutex_;
  uint64_t free_;
  uint64_t spare_;
  uint64_t next_ticket_ = 0;
  std::deque<uint64_t> line_;
};

}  // namespace cairn::nbd::server
