#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "async/runtime.h"
#include "async/signal.h"
#include "async/sync.h"
#include "protocol/nvme/admin_queue.h"
#include "protocol/nvme/channel.h"
#include "protocol/nvme/device.h"
#include "protocol/nvme/dma.h"
#include "protocol/nvme/layout.h"

namespace cairn::nvme {

// A controller that this process drives: it is brought up, each worker that needs it gets queues of
// its own, a controller that does not answer is reset, and at the end it is shut down.
//
// Everything that concerns the controller itself runs on one resident worker, its home.
class Controller {
 public:
  struct Settings {
    std::chrono::milliseconds timeout{30'000};  // of a command
    unsigned most_channels = 16;
    const CancelSource* cancel = nullptr;  // what ends waits for a controller that is silent
    std::function<void(std::string)> warn = [](std::string) {};
  };
  Controller(Runtime& runtime, std::unique_ptr<Device> device, Settings settings);
  Controller(const Controller&) = delete;
  ~Controller();

  // Brings the controller up, as far as one channel; it has namespace NAME_SPACE. close() is to be
  // awaited also when it throws.
  Task<void> open(uint32_t name_space);
  const ControllerIdentity& identity() const { return identity_; }
  const NamespaceIdentity& disk() const { return disk_; }
  uint64_t page_bytes() const { return capabilities_.page_bytes; }
  // The longest read or write.
  uint64_t most_transfer() const { return most_transfer_; }

  DmaSpace& space() { return *space_; }
  BouncePool& buffers() { return *buffers_; }

  // Awaits what WORK gives for a channel, on its worker: that of the caller where it has one, else
  // home. Throws as WORK. From any worker.
  template <class Work>
  Task<void> on_channel(Work work) {
    Worker* const here = Worker::current();
    Channel* own = nullptr;
    if (const auto index = here->resident_index(); index && *index < channels_.size()) {
      own = channels_[*index].ready.load(std::memory_order_acquire);
      if (own == nullptr && !channels_[*index].refused.load(std::memory_order_relaxed))
        own = co_await add_channel_here(*index);
    }
    if (own != nullptr)
      co_await work(*own);
    else
      co_await run_on(*home_, work(*main_));
  }

  // Ends everything under way, which fails, shuts the controller down and gives the device back.
  Task<void> close();

 private:
  struct Place {
    std::unique_ptr<Channel> channel;      // belongs to home
    std::atomic<Channel*> ready{nullptr};  // the same, once it can be used
    std::atomic<bool> refused{false};      // there is none, and none is to be tried
  };

  Task<void> bring_up(uint32_t name_space);
  Task<void> disable();
  Task<void> enable();
  Task<void> learn(uint32_t name_space);
  Task<void> agree_on_queues();
  Task<Channel*> add_channel_here(unsigned index);
  Task<void> make_channel(unsigned index);
  Task<void> create_queues(Channel& channel);
  Task<void> on_alarm(Channel::Trouble trouble);
  Task<void> recover(uint64_t seen, Channel::Trouble trouble);
  Task<void> bring_back(Channel::Trouble trouble);
  Task<void> fail_all(std::exception_ptr why);
  Task<void> watch_removal();
  Task<void> shut_down();
  Task<void> let_go(std::string why);

  Runtime& runtime_;
  const std::unique_ptr<Device> device_;
  const Settings settings_;
  Worker* home_ = nullptr;
  Capabilities capabilities_;
  ControllerIdentity identity_;
  NamespaceIdentity disk_;
  uint64_t most_transfer_ = 0;
  std::unique_ptr<DmaSpace> space_;
  std::unique_ptr<BouncePool> buffers_;
  std::unique_ptr<AdminQueue> admin_;
  std::vector<int> interrupts_;
  unsigned granted_ = 0;         // pairs of queues
  unsigned made_ = 0;            // of those
  std::vector<Place> channels_;  // by resident worker
  Channel* main_ = nullptr;      // that of home
  Mutex changing_;               // the controller's state
  std::atomic<uint64_t> resets_{0};
  bool enabled_ = false;
  std::exception_ptr failure_;  // the controller is given up
  bool watching_ = false;
  bool closing_ = false;
  Signal watch_ended_;
};

}  // namespace cairn::nvme
