#pragma once

#include <chrono>
#include <coroutine>
#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <vector>

#include "async/cancel.h"
#include "async/runtime.h"
#include "async/signal.h"
#include "async/sync.h"
#include "protocol/nvme/dma.h"
#include "protocol/nvme/queue_pair.h"

namespace cairn::nvme {

// The commands of one worker: a pair of queues, a page of memory for each command under way, and
// who waits for what. All of it belongs to its worker, where everything but the constructor is
// called.
class Channel {
 public:
  struct Plan {
    uint16_t number = 1;
    uint32_t entries = 0;  // of each queue
    uint64_t page_bytes = 0;
    uint64_t doorbell_bytes = 0;
    std::optional<uint16_t> vector = {};
    int interrupt = -1;                    // the descriptor of that; -1: there is none
    std::chrono::milliseconds timeout{0};  // of a command
    const CancelSource* cancel = nullptr;  // what ends long waits; null: nothing does
  };
  enum class Trouble : uint8_t {
    kLate,       // a command was not answered in time, or with nonsense
    kBroken,     // the controller reports a fatal error, or is gone
    kCancelled,  // nobody wants to wait any longer
  };
  // Takes care of it: the channel was frozen meanwhile, or has failed.
  using Alarm = std::function<Task<void>(Trouble trouble)>;

  // Throws as DmaMemory and QueuePair.
  Channel(Worker& worker, Device& device, DmaSpace& space, Plan plan, Alarm alarm);
  Channel(const Channel&) = delete;
  ~Channel();

  Worker& worker() const { return worker_; }
  const Plan& plan() const { return plan_; }
  uint64_t submissions_iova() const { return rings_.iova(); }
  uint64_t completions_iova() const { return rings_.iova() + completions_at_; }

  // Room for one command, with a page of memory that the device reaches.
  class Slot {
   public:
    Slot() = default;
    Slot(Slot&& other) noexcept { *this = std::move(other); }
    Slot& operator=(Slot&& other) noexcept {
      std::swap(channel_, other.channel_);
      std::swap(index_, other.index_);
      return *this;
    }
    ~Slot() {
      if (channel_ != nullptr) channel_->give_back(index_);
    }
    MutableByteSpan page() const;
    uint64_t page_iova() const;

   private:
    friend class Channel;
    Channel* channel_ = nullptr;
    uint16_t index_ = 0;
  };
  // Waits while all are taken.
  Task<Slot> acquire();
  // Sends COMMAND and waits for its end. Throws when the controller cannot be reached: the device
  // may still use the memory of the command then until that is no longer mapped.
  Task<Completion> perform(const Slot& slot, const Command& command);

  // While one lives the device does not hear of new commands; then of all at once.
  class Batch {
   public:
    explicit Batch(Channel& channel) : channel_(channel) { ++channel_.held_; }
    Batch(const Batch&) = delete;
    ~Batch() {
      if (--channel_.held_ == 0) channel_.queues_.ring();
    }

   private:
    Channel& channel_;
  };

  // From here on nothing is sent; what has ended is delivered first.
  Task<void> freeze();
  // The controller has the queues again: what was under way is sent once more. Commands that were
  // sent so often already fail.
  Task<void> thaw();
  // Everything under way fails, and all that comes.
  Task<void> fail(std::exception_ptr why);
  // Waits until nothing here runs any more; nothing may be under way.
  Task<void> stop();

 private:
  using Clock = std::chrono::steady_clock;
  struct Flight {
    const Command* command = nullptr;  // null: the slot is not under way
    Completion completion = {};
    std::exception_ptr error = {};
    Clock::time_point sent = {};
    unsigned times = 0;  // sent
    std::coroutine_handle<> handle = {};
  };
  struct Arrival;

  void give_back(uint16_t index);
  void send(uint16_t index);
  void end(Flight& flight);
  bool collect();
  bool has_answers();
  bool waits_longer_than(std::chrono::milliseconds time) const;
  std::optional<Trouble> find_trouble() const;
  Task<void> listen();
  Task<void> wait_for_completions(std::chrono::milliseconds& pause);

  Worker& worker_;
  Device& device_;
  const Plan plan_;
  const uint64_t completions_at_;
  const Alarm alarm_;
  DmaMemory rings_, pages_;
  QueuePair queues_;
  Semaphore free_;
  std::vector<uint16_t> idle_;
  std::vector<Flight> flights_;  // by slot
  unsigned under_way_ = 0;
  unsigned held_ = 0;  // by batches, or while frozen
  bool frozen_ = false;
  bool listening_ = false;
  Signal ended_;  // the listener
  std::exception_ptr failure_;
};

}  // namespace cairn::nvme
