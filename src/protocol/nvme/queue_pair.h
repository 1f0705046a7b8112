#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "protocol/nvme/device.h"
#include "protocol/nvme/layout.h"

namespace cairn::nvme {

// A submission queue and its completion queue, with the same number of entries, in memory that the
// device reaches. No two threads at a time.
class QueuePair {
 public:
  struct Place {
    uint16_t number = 0;               // 0: the queues of the administration
    uint32_t entries = 0;              // at least 2
    MutableByteSpan submissions = {};  // entries * kCommandBytes
    MutableByteSpan completions = {};  // entries * kCompletionBytes
    uint64_t doorbell_bytes = 0;       // from one doorbell to the next
  };
  // Throws kUnsupported when the registers end before the doorbells of the queue.
  QueuePair(Device& device, Place place);

  // Both queues as they are when the controller makes them: empty, and all zeroes.
  void restart();
  // How many more commands find room.
  uint32_t room() const { return place_.entries - 1 - used_; }
  // Puts COMMAND into the queue; the device hears of it by ring(). There must be room().
  void push(const Command& command, uint16_t id);
  void ring();
  // The next command that has ended, if there is one. Throws kIo when its entry makes no sense.
  std::optional<Completion> pop();
  // Gives the entries that were popped back to the device.
  void acknowledge();

 private:
  uint64_t doorbell(bool completions) const {
    return kDoorbellsAt +
           (2 * uint64_t{place_.number} + (completions ? 1 : 0)) * place_.doorbell_bytes;
  }
  Device& device_;
  const Place place_;
  uint32_t tail_ = 0;   // of submissions: where the next goes
  uint32_t seen_ = 0;   // of submissions: what the device has taken, as it said last
  uint32_t used_ = 0;   // of submissions
  uint32_t rung_ = 0;   // of submissions: the tail that the device knows
  uint32_t head_ = 0;   // of completions: where the next is looked for
  uint32_t given_ = 0;  // of completions: the head that the device knows
  bool phase_ = true;   // of entries that are new
};

}  // namespace cairn::nvme
