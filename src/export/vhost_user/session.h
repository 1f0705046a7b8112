// One front end: the messages that set a virtio block device up.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <vector>

#include "async/async.h"
#include "export/vhost_user/disk.h"
#include "export/vhost_user/queue.h"
#include "net/socket.h"

namespace cairn::vhost_user {

// It belongs to the worker that runs it; abort() and size_changed() may be called from elsewhere
// while it lives.
class Session {
 public:
  Session(Disk& disk, Runtime& runtime, Socket socket, Queue::Log log);
  // Until the front end leaves and what it had asked for is done. Throws Error when it breaks the
  // protocol or the connection breaks.
  Task<void> run();
  // Breaks the connection off.
  void abort();
  // Has the front end read the configuration space again.
  void size_changed();

 private:
  static constexpr size_t kMostFiles = 8;
  struct Message {
    Header header;
    std::array<std::byte, kMostPayload> payload;
    std::vector<OwnFd> files;
    bool answered = false;
    ByteSpan bytes() const { return ByteSpan(payload).first(header.size); }
  };
  struct Handler {
    MessageType type;
    size_t bytes;  // that the payload has at least
    Task<void> (Session::*run)(Message&);
  };
  static const Handler kHandlers[];

  Task<bool> receive(Message& message);
  Task<size_t> receive_some(MutableByteSpan out, std::vector<OwnFd>& files);
  Task<void> send(ByteSpan bytes, int file);
  Task<void> handle(Message& message);
  Task<void> answer(Message& message, ByteSpan payload, int file = -1);
  Task<void> answer_number(Message& message, uint64_t number);

  Task<void> get_features(Message& message);
  Task<void> set_features(Message& message);
  Task<void> get_protocol_features(Message& message);
  Task<void> set_protocol_features(Message& message);
  Task<void> ignore(Message& message);
  Task<void> reset(Message& message);
  Task<void> set_memory_table(Message& message);
  Task<void> get_memory_slots(Message& message);
  Task<void> add_memory(Message& message);
  Task<void> remove_memory(Message& message);
  Task<void> set_log(Message& message);
  Task<void> get_queues(Message& message);
  Task<void> set_ring_size(Message& message);
  Task<void> set_ring_addresses(Message& message);
  Task<void> set_ring_base(Message& message);
  Task<void> get_ring_base(Message& message);
  Task<void> set_ring_event(Message& message);
  Task<void> enable_ring(Message& message);
  Task<void> set_backend_channel(Message& message);
  Task<void> get_config(Message& message);
  Task<void> set_config(Message& message);
  Task<void> make_inflight(Message& message);
  Task<void> set_inflight(Message& message);

  Queue& queue(uint32_t index);
  Task<void> stop_queues();
  void start_queues();

  Disk& disk_;
  Runtime& runtime_;
  Socket socket_;
  const Queue::Log log_;
  QueueEnvironment environment_;
  uint64_t protocol_features_ = 0;
  bool always_enabled_ = false;                 // rings, by the features that were agreed on
  std::vector<std::unique_ptr<Queue>> queues_;  // null: not set up
  std::mutex channel_mutex_;
  OwnFd channel_;  // for what we send by ourselves
};

}  // namespace cairn::vhost_user
