// The record of requests that are under way, in memory that the front end keeps when the back end
// dies (vhost-user: "Inflight I/O tracking"): a later back end does again what was not answered.
#pragma once

#include <cstdint>
#include <vector>

#include "export/vhost_user/guest_memory.h"
#include "export/vhost_user/wire.h"

namespace cairn::vhost_user {

// The record of one queue. It belongs to the worker of the queue; the front end may write to it at
// any time, and what is read is checked.
class InflightQueue {
 public:
  InflightQueue() = default;
  InflightQueue(MutableByteSpan bytes, uint16_t queue_size);
  explicit operator bool() const { return !bytes_.empty(); }

  // Brings the record in line with a ring whose used index is USED_INDEX: gives the heads of the
  // requests to be done again, in the order in which they were taken.
  std::vector<uint16_t> recover(uint16_t used_index);
  // The request at HEAD was taken.
  void begin(uint16_t head);
  // Around the moment when the request at HEAD is put into the used ring.
  void before_used(uint16_t head);
  void after_used(uint16_t head, uint16_t used_index);

 private:
  MutableByteSpan entry(uint16_t head) const;
  MutableByteSpan bytes_;
  uint16_t size_ = 0;
  uint64_t counter_ = 0;
};

// The records of all queues.
class InflightRecord {
 public:
  // Makes the memory for QUEUES rings of QUEUE_SIZE entries. Throws kInvalid.
  static OwnFd create(uint16_t queues, uint16_t queue_size, InflightArea* area);
  // Uses what create() made, perhaps of an earlier process. Throws kInvalid when AREA is too small
  // for what it says.
  InflightRecord(int file, const InflightArea& area);

  // Empty for a queue that is not in the record, or whose ring is larger.
  InflightQueue queue(uint32_t index, uint32_t queue_size) const;

 private:
  SharedMapping mapping_;
  InflightArea area_;
};

}  // namespace cairn::vhost_user
