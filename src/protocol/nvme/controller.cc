#include "protocol/nvme/controller.h"

#include <fmt/core.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/arith.h"
#include "protocol/nvme/prp.h"

namespace cairn::nvme {
namespace {

// Of each queue: what is under way at a time has fewer.
constexpr uint32_t kEntries = 128;
// Waits for the shutdown of a controller, which may have to write what it cached.
constexpr std::chrono::milliseconds kShutDownTime{10'000};

Error gone() { return Error(ErrorKind::kIo, "the NVMe controller is gone"); }

}  // namespace

Controller::Controller(Runtime& runtime, std::unique_ptr<Device> device, Settings settings)
    : runtime_(runtime), device_(std::move(device)), settings_(std::move(settings)) {}

// Mappings are undone before the device is closed, by close().
Controller::~Controller() = default;

Task<void> Controller::open(uint32_t name_space) {
  home_ = &Worker::current()->home();
  const unsigned own = home_->resident_index().value();
  const auto wanted = std::min(runtime_.worker_count(), settings_.most_channels);
  channels_ = std::vector<Place>(std::max(wanted, own + 1));
  co_await run_on(*home_, bring_up(name_space));
}

Task<void> Controller::bring_up(uint32_t name_space) {
  const auto guard = co_await changing_.lock();
  capabilities_ = Capabilities::decode(device_->read64(kCapabilitiesAt),
                                       static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)));
  space_ = std::make_unique<DmaSpace>(*device_);
  co_await disable();
  admin_ = std::make_unique<AdminQueue>(*device_, *space_, capabilities_);
  buffers_ = std::make_unique<BouncePool>(*space_);
  co_await enable();
  co_await learn(name_space);
  const auto vectors =
      static_cast<unsigned>(std::min<size_t>(device_->vectors(), channels_.size() + 1));
  if (vectors != 0) interrupts_ = device_->enable_interrupts(vectors);
  co_await agree_on_queues();
  const unsigned own = home_->resident_index().value();
  co_await make_channel(own);
  main_ = channels_[own].channel.get();
  channels_[own].ready = main_;
  if (device_->removal()) {
    watching_ = true;
    spawn_detached(watch_removal());
  }
}

// The controller forgets its queues and touches memory no more.
Task<void> Controller::disable() {
  enabled_ = false;
  const uint32_t configuration = device_->read32(kConfigurationAt);
  if (configuration == kGone32) throw gone();
  // Without the request for a shutdown, with which it would not come up again.
  device_->write32(kConfigurationAt, configuration & ~(kEnable | kShutDownMask));
  const auto stopped = [this] {
    const uint32_t status = device_->read32(kStatusAt);
    return status == kGone32 || (status & kReady) == 0;
  };
  const bool done = co_await wait_until(stopped, capabilities_.timeout);
  if (device_->read32(kStatusAt) == kGone32) throw gone();
  if (!done)
    throw Error(ErrorKind::kIo, fmt::format("Timeout while waiting for device to reset ({} ms)",
                                            capabilities_.timeout.count()));
}

Task<void> Controller::enable() {
  admin_->place();
  device_->write32(kConfigurationAt, enabled_configuration(capabilities_.page_bytes));
  const auto started = [this] { return (device_->read32(kStatusAt) & (kReady | kFatal)) != 0; };
  const bool done = co_await wait_until(started, capabilities_.timeout);
  const uint32_t status = device_->read32(kStatusAt);
  if (status == kGone32) throw gone();
  if ((status & kFatal) != 0)
    throw Error(ErrorKind::kIo, "the controller reports a fatal error while it starts");
  if (!done)
    throw Error(ErrorKind::kIo, fmt::format("Timeout while waiting for device to start ({} ms)",
                                            capabilities_.timeout.count()));
  enabled_ = true;
}

Task<void> Controller::learn(uint32_t name_space) {
  co_await admin_->perform(identify(Identified::kController, 0, admin_->page_iova()),
                           "Identify Controller", settings_.timeout);
  identity_ = ControllerIdentity::decode(admin_->page(), capabilities_.page_bytes);
  if (name_space > identity_.namespaces)
    throw Error(ErrorKind::kInvalid,
                fmt::format("Invalid namespace {}: the controller has {} at most", name_space,
                            identity_.namespaces));
  co_await admin_->perform(identify(Identified::kNamespace, name_space, admin_->page_iova()),
                           "Identify Namespace", settings_.timeout);
  disk_ = NamespaceIdentity::decode(admin_->page(), capabilities_.page_bytes);
  most_transfer_ = most_prp_bytes(capabilities_.page_bytes);
  if (identity_.most_bytes != 0) most_transfer_ = std::min(most_transfer_, identity_.most_bytes);
  most_transfer_ = std::min(most_transfer_, kMostBlocks * disk_.block_bytes);
}

// With what is there: after a reset the number must be asked for again.
Task<void> Controller::agree_on_queues() {
  const auto wanted = static_cast<uint16_t>(channels_.size());
  const Completion answer =
      co_await admin_->perform(ask_for_queues(wanted), "Number of Queues", settings_.timeout);
  granted_ = std::min<uint32_t>(granted_queues(answer.result), wanted);
}

// On home, under changing_.
Task<void> Controller::make_channel(unsigned index) {
  if (failure_) std::rethrow_exception(failure_);
  if (made_ >= granted_) throw Error(ErrorKind::kNoSpace, "the controller has no more queues");
  const auto number = static_cast<uint16_t>(made_ + 1);
  Channel::Plan plan{.number = number,
                     .entries = std::min(kEntries, capabilities_.most_entries),
                     .page_bytes = capabilities_.page_bytes,
                     .doorbell_bytes = capabilities_.doorbell_bytes,
                     .timeout = settings_.timeout,
                     .cancel = settings_.cancel};
  if (!interrupts_.empty()) {
    // The first is that of the administration, unless there is no other.
    const size_t vector = std::min<size_t>(number, interrupts_.size() - 1);
    plan.vector = static_cast<uint16_t>(vector);
    plan.interrupt = interrupts_[vector];
  }
  Worker& worker = runtime_.worker(index);
  auto made =
      std::make_unique<Channel>(worker, *device_, *space_, plan,
                                [this](Channel::Trouble trouble) { return on_alarm(trouble); });
  co_await create_queues(*made);
  ++made_;
  channels_[index].channel = std::move(made);
}

Task<void> Controller::create_queues(Channel& channel) {
  const Channel::Plan& plan = channel.plan();
  co_await admin_->perform(
      create_completions(plan.number, plan.entries, channel.completions_iova(), plan.vector),
      "Create I/O Completion Queue", settings_.timeout);
  co_await admin_->perform(
      create_submissions(plan.number, plan.entries, channel.submissions_iova()),
      "Create I/O Submission Queue", settings_.timeout);
}

Task<Channel*> Controller::add_channel_here(unsigned index) {
  Task<void> work = [](Controller& self, unsigned which) -> Task<void> {
    const auto guard = co_await self.changing_.lock();
    Place& place = self.channels_[which];
    // Another request of that worker may have made it, or failed to.
    if (place.ready.load() != nullptr || place.refused.load()) co_return;
    bool made = false;
    try {
      co_await self.make_channel(which);
      made = true;
    } catch (const Error&) {
      // It shares that of home, which reports what is wrong with the controller.
    }
    if (made)
      place.ready = place.channel.get();
    else
      place.refused = true;
  }(*this, index);
  co_await run_on(*home_, std::move(work));
  co_return channels_[index].ready.load();
}

// --- what goes wrong ---

Task<void> Controller::on_alarm(Channel::Trouble trouble) {
  const uint64_t seen = resets_.load();
  co_await run_on(*home_, recover(seen, trouble));
}

// Several channels may find out at a time: the first resets.
Task<void> Controller::recover(uint64_t seen, Channel::Trouble trouble) {
  const auto guard = co_await changing_.lock();
  if (failure_ || resets_.load() != seen) co_return;
  std::exception_ptr error;
  try {
    for (const Place& place : channels_)
      if (place.channel) co_await run_on(place.channel->worker(), place.channel->freeze());
    co_await bring_back(trouble);
  } catch (...) {
    error = std::current_exception();
  }
  if (error) {
    co_await fail_all(error);
    co_return;
  }
  ++resets_;
  for (const Place& place : channels_)
    if (place.channel) co_await run_on(place.channel->worker(), place.channel->thaw());
}

Task<void> Controller::bring_back(Channel::Trouble trouble) {
  const uint32_t status = device_->read32(kStatusAt);
  if (status == kGone32) throw gone();
  if (trouble == Channel::Trouble::kCancelled) throw Error(ErrorKind::kCancelled, "cancelled");
  settings_.warn(trouble == Channel::Trouble::kLate
                     ? "the NVMe controller does not answer: it is reset"
                     : "the NVMe controller reports a fatal error: it is reset");
  std::exception_ptr error;
  try {
    co_await disable();
  } catch (...) {
    error = std::current_exception();
  }
  // The harder way.
  if (error && !device_->reset()) std::rethrow_exception(error);
  if (error) co_await disable();
  co_await enable();
  co_await agree_on_queues();
  if (granted_ < made_)
    throw Error(ErrorKind::kIo, "the controller has fewer queues after its reset");
  for (const Place& place : channels_)
    if (place.channel) co_await create_queues(*place.channel);
}

// Under changing_.
Task<void> Controller::fail_all(std::exception_ptr why) {
  failure_ = why;
  for (const Place& place : channels_)
    if (place.channel) co_await run_on(place.channel->worker(), place.channel->fail(why));
}

// The system may want the device back while it is in use, and waits for that.
Task<void> Controller::watch_removal() {
  const int descriptor = device_->removal().value();
  const short ready = co_await await_ready(descriptor, POLLIN);
  if (!closing_ && (ready & POLLIN) != 0) {
    settings_.warn("the NVMe controller is removed");
    co_await let_go("the NVMe controller was removed from the system");
  }
  watching_ = false;
  watch_ended_.notify();
}

// --- the end ---

Task<void> Controller::close() {
  if (home_ == nullptr) {
    device_->close();
    co_return;
  }
  Task<void> work = [](Controller& self) -> Task<void> {
    self.closing_ = true;
    if (const auto descriptor = self.watching_ ? self.device_->removal() : std::nullopt)
      wake_waits(*descriptor);
    while (true) {
      const uint64_t seen = self.watch_ended_.count();
      if (!self.watching_) break;
      co_await self.watch_ended_.next(seen);
    }
    co_await self.let_go("the NVMe controller was closed");
  }(*this);
  co_await run_on(*home_, std::move(work));
}

// What is under way fails with WHY, and nothing comes any more.
Task<void> Controller::let_go(std::string why) {
  {
    const auto guard = co_await changing_.lock();
    if (!failure_)
      co_await fail_all(std::make_exception_ptr(Error(ErrorKind::kIo, std::move(why))));
  }
  // Without the lock: a channel may be waiting for it, to find out that there is nothing to do.
  for (const Place& place : channels_)
    if (place.channel) co_await run_on(place.channel->worker(), place.channel->stop());
  const auto guard = co_await changing_.lock();
  try {
    if (enabled_ && device_->read32(kStatusAt) != kGone32) co_await shut_down();
  } catch (const Error&) {
    // The system resets the function when it is closed.
  }
  enabled_ = false;
  // What requests have mapped cannot be reached from here on; they are woken already.
  device_->close();
}

Task<void> Controller::shut_down() {
  const std::pair<AdminOpcode, const char*> steps[] = {
      {AdminOpcode::kDeleteSubmissions, "Delete I/O Submission Queue"},
      {AdminOpcode::kDeleteCompletions, "Delete I/O Completion Queue"}};
  for (const auto& [opcode, what] : steps)
    for (const Place& place : channels_)
      if (place.channel)
        co_await admin_->perform(delete_queue(opcode, place.channel->plan().number), what,
                                 settings_.timeout);
  const uint32_t configuration = device_->read32(kConfigurationAt);
  device_->write32(kConfigurationAt, (configuration & ~kShutDownMask) | kShutDown);
  const auto done = [this] {
    const uint32_t status = device_->read32(kStatusAt);
    return status == kGone32 || (status & kShutDownState) == kShutDownDone;
  };
  co_await wait_until(done, kShutDownTime);
  co_await disable();
}

}  // namespace cairn::nvme
