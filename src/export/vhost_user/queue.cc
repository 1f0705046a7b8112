#include "export/vhost_user/queue.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <thread>

#include "base/error.h"

namespace cairn::vhost_user {
namespace {

// Where there is one processor, looking for requests would keep the guest from sending them.
bool has_spare_processors() {
  static const bool several = std::thread::hardware_concurrency() > 1;
  return several;
}

// Who shares the event may empty it between two calls: this never waits.
void empty_event(int event) {
  uint64_t count = 0;
  const iovec vector{.iov_base = &count, .iov_len = sizeof count};
  if (::preadv2(event, &vector, 1, -1, RWF_NOWAIT) < 0 && errno == EOPNOTSUPP) {
    // An older kernel: the event was made non-blocking.
    [[maybe_unused]] const ssize_t got = ::read(event, &count, sizeof count);
  }
}

void signal_event(const OwnFd& event) {
  if (!event) return;
  const uint64_t one = 1;
  // The counter can only refuse when it is already set.
  [[maybe_unused]] const ssize_t written = ::write(event.get(), &one, sizeof one);
}

}  // namespace

OwnFd checked_event(OwnFd file) {
  char target[64] = "";
  const std::string link = fmt::format("/proc/self/fd/{}", file.get());
  const ssize_t length = ::readlink(link.c_str(), target, sizeof target);
  if (length >= 0 &&
      std::string_view(target, static_cast<size_t>(length)) != "anon_inode:[eventfd]")
    invalid("file descriptor that is no event");
  const int flags = ::fcntl(file.get(), F_GETFL);
  if (flags < 0 || ::fcntl(file.get(), F_SETFL, flags | O_NONBLOCK) != 0)
    throw Error::system(errno, "cannot use an event");
  return file;
}

Queue::Queue(Disk& disk, QueueEnvironment& environment, uint32_t index, Worker& worker, Log log)
    : disk_(disk),
      environment_(environment),
      index_(index),
      worker_(worker),
      log_(std::move(log)) {}

void Queue::set_addresses(const VringAddresses& addresses) {
  setup_.addresses = addresses;
  has_addresses_ = true;
  broken_ = false;
}

void Queue::set_base(uint16_t next_available) {
  base_ = next_available;
  broken_ = false;
}

void Queue::set_kick(OwnFd event) {
  kick_ = std::move(event);
  broken_ = false;
}

void Queue::start() {
  if (running_ || broken_ || !enabled_ || !kick_ || !has_addresses_ || setup_.size == 0) return;
  running_ = true;
  stopping_ = false;
  setup_.features = environment_.features;
  runner_.spawn_on(worker_, run());
}

Task<void> Queue::stop() {
  if (!running_) co_return;
  co_await run_on(worker_, wake());
  co_await runner_.join();
  running_ = false;
}

Task<void> Queue::wake() {
  stopping_ = true;
  wake_waits(kick_.get());
  co_return;
}

Task<void> Queue::run() {
  TaskGroup requests;
  std::string trouble;
  try {
    co_await serve(requests);
  } catch (const std::exception& error) {
    trouble = error.what();
  }
  batching_ = false;
  co_await requests.join();
  if (ring_) base_ = ring_->next_available();
  ring_.reset();
  if (trouble.empty()) co_return;
  broken_ = true;
  log_(fmt::format("queue {} stopped: {}", index_, trouble));
  signal_event(error_);
}

Task<void> Queue::serve(TaskGroup& requests) {
  const bool logged = (environment_.features & feature::kLogAll) != 0;
  ring_.emplace(environment_.memory, logged ? environment_.log.get() : nullptr, setup_);
  ring_->set_next_available(base_);
  // One that died may have answered without waking the guest.
  signal_event(call_);
  inflight_ =
      environment_.inflight ? environment_.inflight->queue(index_, setup_.size) : InflightQueue();
  if (inflight_) {
    // What was taken by a back end that is gone was not answered yet.
    const std::vector<uint16_t> again = inflight_.recover(ring_->used_index());
    ring_->set_next_available(static_cast<uint16_t>(ring_->used_index() + again.size()));
    for (const uint16_t head : again) co_await begin(head, requests);
  }
  ring_->ask_for_kicks(false);
  while (!stopping_) {
    co_await take_available(requests);
    check_memory();
    if (stopping_) break;
    // A guest that waits for an answer sends nothing before it has it.
    if (under_way_ == 0 && has_spare_processors() && busy_poll_.worthwhile()) co_await look_again();
    if (ring_->available() == 0 && !stopping_) co_await sleep_until_kicked();
  }
}

// For a moment. Others of this worker go on meanwhile.
Task<void> Queue::look_again() {
  const auto end = BusyPoll::Clock::now() + BusyPoll::kLongest;
  while (!stopping_ && ring_->available() == 0) {
    if (BusyPoll::Clock::now() >= end) co_return busy_poll_.missed();
    co_await yield_now();
  }
  busy_poll_.found();
}

Task<void> Queue::sleep_until_kicked() {
  ring_->ask_for_kicks(true);
  if (ring_->available() == 0) {
    const auto begin = BusyPoll::Clock::now();
    co_await await_ready(kick_.get(), POLLIN);
    empty_event(kick_.get());
    busy_poll_.slept(BusyPoll::Clock::now() - begin);
  }
  ring_->ask_for_kicks(false);
}

void Queue::check_memory() const {
  if (environment_.memory.broken())
    throw Error(ErrorKind::kCorrupt, "the file of the guest's memory was cut");
}

Task<void> Queue::take_available(TaskGroup& requests) {
  batching_ = true;
  for (unsigned taken = 1; !stopping_ && ring_->available() != 0; ++taken) {
    const uint16_t head = ring_->next_head();
    co_await begin(head, requests);
    if (taken % kBatch != 0) continue;
    notify();
    co_await yield_now();
  }
  batching_ = false;
  notify();
}

Task<void> Queue::begin(uint16_t head, TaskGroup& requests) {
  if (under_way_ >= kMostRequests) {
    const bool before = batching_;
    batching_ = false;
    notify();
    co_await slots_.acquire();
    batching_ = before;
  } else {
    co_await slots_.acquire();
  }
  std::unique_ptr<Chain> chain;
  if (free_chains_.empty()) {
    chain = std::make_unique<Chain>();
  } else {
    chain = std::move(free_chains_.back());
    free_chains_.pop_back();
  }
  try {
    ring_->read_chain(head, chain.get());
    Disk::check(*chain);
  } catch (...) {
    slots_.release();
    throw;
  }
  if (inflight_) inflight_.begin(head);
  ++under_way_;
  requests.spawn(execute(std::move(chain)));
}

Task<void> Queue::execute(std::unique_ptr<Chain> chain) {
  const bool caches = (environment_.features & feature::kConfigWce) != 0
                          ? environment_.write_cache
                          : !disk_.options().write_through;
  const Disk::Agreement agreement{.durable_writes =
                                      (environment_.features & feature::kFlush) == 0 || !caches};
  const uint32_t written = co_await disk_.perform(*chain, *ring_, agreement);
  if (inflight_) inflight_.before_used(chain->head);
  ring_->push_used(chain->head, written);
  if (inflight_) inflight_.after_used(chain->head, ring_->used_index());
  free_chains_.push_back(std::move(chain));
  --under_way_;
  slots_.release();
  if (!batching_) notify();
}

void Queue::notify() {
  if (ring_->must_notify()) signal_event(call_);
}

}  // namespace cairn::vhost_user
