// One queue of a virtio block device: takes requests from a ring, runs them side by side, and puts
// them back.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "async/async.h"
#include "base/own_fd.h"
#include "export/vhost_user/busy_poll.h"
#include "export/vhost_user/disk.h"
#include "export/vhost_user/inflight.h"
#include "export/vhost_user/split_ring.h"

namespace cairn::vhost_user {

// What all queues of a session use. Changed only while none of them runs.
struct QueueEnvironment {
  GuestMemory memory;
  std::unique_ptr<DirtyLog> log;
  std::unique_ptr<InflightRecord> inflight;
  uint64_t features = 0;  // that were agreed on
  bool write_cache = true;
};

// The setters, start() and stop() are for the worker of the session, the setters only while the
// queue does not run; it runs on a worker of its own.
class Queue {
 public:
  using Log = std::function<void(std::string_view)>;
  Queue(Disk& disk, QueueEnvironment& environment, uint32_t index, Worker& worker, Log log);

  void set_size(uint32_t size) { setup_.size = size; }
  void set_addresses(const VringAddresses& addresses);
  void set_base(uint16_t next_available);
  void set_kick(OwnFd event);
  void set_call(OwnFd event) { call_ = std::move(event); }
  void set_error(OwnFd event) { error_ = std::move(event); }
  void set_enabled(bool enabled) { enabled_ = enabled; }
  uint16_t base() const { return base_; }

  // Runs from now on, if all that it needs is there.
  void start();
  // Takes no more requests; returns when those that were taken have been answered.
  Task<void> stop();

 private:
  // Requests under way at a time.
  static constexpr unsigned kMostRequests = 128;
  // After so many others of the worker have their turn.
  static constexpr unsigned kBatch = 64;

  Task<void> run();
  Task<void> serve(TaskGroup& requests);
  Task<void> take_available(TaskGroup& requests);
  Task<void> look_again();
  Task<void> sleep_until_kicked();
  Task<void> begin(uint16_t head, TaskGroup& requests);
  Task<void> execute(std::unique_ptr<Chain> chain);
  Task<void> wake();
  void notify();
  void check_memory() const;

  Disk& disk_;
  QueueEnvironment& environment_;
  const uint32_t index_;
  Worker& worker_;
  const Log log_;
  RingSetup setup_;
  bool has_addresses_ = false;
  bool enabled_ = false;
  bool broken_ = false;  // until the front end sets the queue up again
  uint16_t base_ = 0;
  OwnFd kick_, call_, error_;
  TaskGroup runner_;
  bool running_ = false;

  // Of the queue's worker while it runs.
  bool stopping_ = false;
  bool batching_ = false;  // the guest is woken at the end of the batch
  std::optional<SplitRing> ring_;
  InflightQueue inflight_;
  BusyPoll busy_poll_;
  unsigned under_way_ = 0;
  Semaphore slots_{kMostRequests};
  std::vector<std::unique_ptr<Chain>> free_chains_;
};

// An eventfd of the front end, which reading and writing do not wait for. Throws kInvalid for what
// is none.
OwnFd checked_event(OwnFd file);

}  // namespace cairn::vhost_user
