#pragma once

#include <chrono>
#include <string>

#include "async/runtime.h"
#include "protocol/nvme/dma.h"
#include "protocol/nvme/queue_pair.h"

namespace cairn::nvme {

// The queues of the administration: one command at a time, whose end is looked for without
// interrupts. On one worker.
class AdminQueue {
 public:
  // Throws as DmaMemory and QueuePair.
  AdminQueue(Device& device, DmaSpace& space, const Capabilities& capabilities);

  // Gives the controller, which is not enabled, the addresses of its queues.
  void place();
  // Throws kIo when the controller does not answer in TIMEOUT, or the device is gone; and what the
  // status of the command says, which WHAT names.
  Task<Completion> perform(Command command, std::string what, std::chrono::milliseconds timeout);
  // A page that commands may fill.
  ByteSpan page() { return memory_.span().subspan(2 * page_bytes_, kIdentifyBytes); }
  uint64_t page_iova() const { return memory_.iova() + 2 * page_bytes_; }

 private:
  Device& device_;
  const uint64_t page_bytes_;
  const uint32_t entries_;
  DmaMemory memory_;  // submissions, completions and one page for data
  QueuePair queues_;
  uint16_t next_id_ = 0;
};

// Waits until READY gives true: at first without sleeping. Gives false when TIMEOUT has passed
// before.
template <class Ready>
Task<bool> wait_until(Ready ready, std::chrono::milliseconds timeout) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::microseconds kBusy{300};
  constexpr std::chrono::milliseconds kBetweenLooks{1};
  const Clock::time_point begin = Clock::now();
  while (!ready()) {
    const auto passed = Clock::now() - begin;
    // Looked at once more at the end, however late that is.
    if (passed >= timeout) co_return ready();
    if (passed < kBusy)
      co_await yield_now();
    else
      co_await sleep_for(kBetweenLooks);
  }
  co_return true;
}

}  // namespace cairn::nvme
