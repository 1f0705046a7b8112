#include "protocol/nvme/channel.h"

#include <fmt/core.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>

#include "async/detached.h"
#include "base/arith.h"

namespace cairn::nvme {
namespace {

// Commands under way at a time; more gain nothing, and each has a page of locked memory.
constexpr uint32_t kSlots = 64;
// How often a command is sent at most: again after a reset of the controller.
constexpr unsigned kMostTimes = 2;
// An interrupt that has not come after so long may be lost: the queue is looked at.
constexpr std::chrono::milliseconds kFirstPause{10}, kLongestPause{1000};
// A controller gets so long to answer after a cancellation.
constexpr std::chrono::milliseconds kPatience{1000};

uint32_t slots_of(const Channel::Plan& plan) { return std::min(kSlots, plan.entries - 1); }

}  // namespace

Channel::Channel(Worker& worker, Device& device, DmaSpace& space, Plan plan, Alarm alarm)
    : worker_(worker),
      device_(device),
      plan_(plan),
      completions_at_(align_up(plan.entries * kCommandBytes, plan.page_bytes)),
      alarm_(std::move(alarm)),
      rings_(space, completions_at_ + align_up(plan.entries * kCompletionBytes, plan.page_bytes)),
      pages_(space, slots_of(plan) * plan.page_bytes),
      queues_(device, {.number = plan.number,
                       .entries = plan.entries,
                       .submissions = rings_.span().first(plan.entries * kCommandBytes),
                       .completions =
                           rings_.span().subspan(completions_at_, plan.entries * kCompletionBytes),
                       .doorbell_bytes = plan.doorbell_bytes}),
      free_(slots_of(plan)),
      flights_(slots_of(plan)) {
  for (size_t i = flights_.size(); i != 0; --i) idle_.push_back(static_cast<uint16_t>(i - 1));
}

Channel::~Channel() = default;

MutableByteSpan Channel::Slot::page() const {
  const uint64_t bytes = channel_->plan_.page_bytes;
  return channel_->pages_.span().subspan(index_ * bytes, bytes);
}

uint64_t Channel::Slot::page_iova() const {
  return channel_->pages_.iova() + index_ * channel_->plan_.page_bytes;
}

Task<Channel::Slot> Channel::acquire() {
  co_await free_.acquire();
  Slot slot;
  slot.channel_ = this;
  slot.index_ = idle_.back();
  idle_.pop_back();
  co_return slot;
}

void Channel::give_back(uint16_t index) {
  idle_.push_back(index);
  free_.release();
}

struct Channel::Arrival {
  Flight& flight;
  bool await_ready() const noexcept { return flight.command == nullptr; }
  void await_suspend(std::coroutine_handle<> handle) const noexcept { flight.handle = handle; }
  void await_resume() const noexcept {}
};

Task<Completion> Channel::perform(const Slot& slot, const Command& command) {
  if (failure_) std::rethrow_exception(failure_);
  Flight& flight = flights_[slot.index_];
  flight = Flight{.command = &command};
  ++under_way_;
  // What is frozen is sent by thaw().
  if (!frozen_) send(slot.index_);
  if (!listening_) {
    listening_ = true;
    spawn_detached(listen());
  }
  co_await Arrival{flight};
  if (flight.error) std::rethrow_exception(flight.error);
  co_return flight.completion;
}

void Channel::send(uint16_t index) {
  Flight& flight = flights_[index];
  flight.sent = Clock::now();
  ++flight.times;
  queues_.push(*flight.command, index);
  if (held_ == 0) queues_.ring();
}

void Channel::end(Flight& flight) {
  flight.command = nullptr;
  --under_way_;
  if (flight.handle) worker_.post(flight.handle);
}

// Whether a command has ended.
bool Channel::collect() {
  if (frozen_) return false;
  bool any = false;
  // A controller that never stops writing must not keep the worker.
  for (uint32_t n = 0; n < plan_.entries; ++n) {
    const auto completion = queues_.pop();
    if (!completion) break;
    // One that nobody waits for is ignored: it answers nothing.
    if (completion->command >= flights_.size()) continue;
    Flight& flight = flights_[completion->command];
    if (flight.command == nullptr) continue;
    flight.completion = *completion;
    end(flight);
    any = true;
  }
  queues_.acknowledge();
  return any;
}

bool Channel::waits_longer_than(std::chrono::milliseconds time) const {
  const Clock::time_point now = Clock::now();
  return std::any_of(flights_.begin(), flights_.end(), [&](const Flight& flight) {
    return flight.command != nullptr && flight.times != 0 && now - flight.sent >= time;
  });
}

std::optional<Channel::Trouble> Channel::find_trouble() const {
  if (waits_longer_than(plan_.timeout)) return Trouble::kLate;
  const uint32_t status = device_.read32(kStatusAt);
  if (status == kGone32 || (status & kFatal) != 0) return Trouble::kBroken;
  if (plan_.cancel != nullptr && plan_.cancel->requested() && waits_longer_than(kPatience))
    return Trouble::kCancelled;
  return std::nullopt;
}

// Delivers what has ended; nonsense is for the next look.
bool Channel::has_answers() {
  try {
    return collect();
  } catch (const Error&) {
    return false;
  }
}

// Until the interrupt comes, or it is time to look without one.
Task<void> Channel::wait_for_completions(std::chrono::milliseconds& pause) {
  if (plan_.interrupt < 0) {
    constexpr std::chrono::milliseconds kBetweenLooks{1};
    co_await sleep_for(kBetweenLooks);
    pause = kFirstPause;
    co_return;
  }
  const short ready = co_await await_ready(plan_.interrupt, POLLIN, Clock::now() + pause);
  if ((ready & POLLIN) != 0) {
    uint64_t count = 0;
    // Another queue of the same interrupt may have read it.
    [[maybe_unused]] const ssize_t got = ::read(plan_.interrupt, &count, sizeof count);
    pause = kFirstPause;
  } else {
    pause = std::min(2 * pause, kLongestPause);
  }
}

// Delivers what has ended as long as something is under way.
Task<void> Channel::listen() {
  std::chrono::milliseconds pause = kFirstPause;
  Clock::time_point looked = Clock::now();
  while (under_way_ != 0) {
    std::optional<Trouble> trouble;
    try {
      if (collect()) {
        pause = kFirstPause;
        looked = Clock::now();
        // Who was waiting may send the next command at once.
        co_await yield_now();
        continue;
      }
    } catch (const Error&) {
      trouble = Trouble::kLate;
    }
    if (!trouble) {
      co_await wait_for_completions(pause);
      if (frozen_ || Clock::now() - looked < kFirstPause) continue;
      looked = Clock::now();
      trouble = find_trouble();
      // An answer may have come while this worker was busy.
      if (trouble && has_answers()) continue;
    }
    if (trouble) co_await alarm_(*trouble);
  }
  listening_ = false;
  ended_.notify();
}

Task<void> Channel::freeze() {
  // Nonsense goes with the queues, which are made again.
  has_answers();
  frozen_ = true;
  ++held_;
  co_return;
}

Task<void> Channel::thaw() {
  queues_.restart();
  frozen_ = false;
  for (size_t i = 0; i < flights_.size(); ++i) {
    Flight& flight = flights_[i];
    if (flight.command == nullptr) continue;
    if (flight.times < kMostTimes) {
      send(static_cast<uint16_t>(i));
      continue;
    }
    flight.error = std::make_exception_ptr(
        Error(ErrorKind::kIo,
              fmt::format("the controller did not answer in {} ms, also after it was reset",
                          plan_.timeout.count())));
    end(flight);
  }
  if (--held_ == 0) queues_.ring();
  co_return;
}

Task<void> Channel::fail(std::exception_ptr why) {
  failure_ = why;
  frozen_ = true;
  ++held_;
  for (Flight& flight : flights_) {
    if (flight.command == nullptr) continue;
    flight.error = why;
    end(flight);
  }
  if (plan_.interrupt >= 0) wake_waits(plan_.interrupt);
  co_return;
}

Task<void> Channel::stop() {
  while (true) {
    const uint64_t seen = ended_.count();
    if (!listening_) break;
    co_await ended_.next(seen);
  }
}

}  // namespace cairn::nvme
