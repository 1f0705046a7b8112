#include "async/sync.h"

namespace cairn {
namespace detail {

void WaiterQueue::push(Waiter* waiter) {
  waiter->next = nullptr;
  if (tail != nullptr)
    tail->next = waiter;
  else
    head = waiter;
  tail = waiter;
}

Waiter* WaiterQueue::pop() {
  Waiter* first = head;
  head = first->next;
  if (head == nullptr) tail = nullptr;
  return first;
}

}  // namespace detail

namespace {

constexpr int kSpins = 20;
constexpr int kPauses = 10;

// Informs the processor that this is a loop that waits.
void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Resumes a chain of waiters, each on its worker. The waiter's frame may go as soon as it runs.
void wake(detail::WaiterQueue& ready) {
  while (!ready.empty()) {
    detail::Waiter* waiter = ready.pop();
    waiter->worker->post(waiter->handle);
  }
}

}  // namespace

// --- Mutex ---

bool Mutex::try_lock() {
  std::lock_guard lock(state_);
  if (locked_) return false;
  locked_ = true;
  holder_ = Worker::current();
  return true;
}

// Not for one who cannot go on while this worker spins, nor past others who wait.
bool Mutex::worth_spinning() {
  std::lock_guard lock(state_);
  return waiters_.empty() && holder_ != Worker::current();
}

bool Mutex::Awaiter::await_ready() {
  if (mutex_->try_lock()) return true;
  for (int round = 0; round < kSpins && mutex_->worth_spinning(); ++round) {
    for (int i = 0; i < kPauses; ++i) pause();
    if (mutex_->try_lock()) return true;
  }
  return false;
}

bool Mutex::Awaiter::await_suspend(std::coroutine_handle<> handle) {
  waiter_.worker = Worker::current();
  waiter_.handle = handle;
  std::lock_guard lock(mutex_->state_);
  if (!mutex_->locked_) {
    mutex_->locked_ = true;
    mutex_->holder_ = waiter_.worker;
    return false;
  }
  mutex_->waiters_.push(&waiter_);
  return true;
}

void Mutex::unlock() {
  detail::WaiterQueue ready;
  {
    std::lock_guard lock(state_);
    // The lock passes to the next in line without being free in between.
    if (waiters_.empty()) {
      locked_ = false;
    } else {
      holder_ = waiters_.head->worker;
      ready.push(waiters_.pop());
    }
  }
  wake(ready);
}

Mutex::Guard& Mutex::Guard::operator=(Guard&& other) noexcept {
  if (this != &other) {
    release();
    mutex_ = std::exchange(other.mutex_, nullptr);
  }
  return *this;
}

void Mutex::Guard::release() {
  if (Mutex* mutex = std::exchange(mutex_, nullptr)) mutex->unlock();
}

// --- RwLock ---

bool RwLock::try_enter(bool exclusive) {
  if (writer_ || (exclusive && readers_ != 0)) return false;
  if (exclusive)
    writer_ = true;
  else
    ++readers_;
  return true;
}

bool RwLock::Awaiter::await_ready() {
  std::lock_guard lock(lock_->state_);
  return lock_->waiters_.empty() && lock_->try_enter(exclusive_);
}

bool RwLock::Awaiter::await_suspend(std::coroutine_handle<> handle) {
  waiter_.worker = Worker::current();
  waiter_.handle = handle;
  waiter_.exclusive = exclusive_;
  std::lock_guard lock(lock_->state_);
  if (lock_->waiters_.empty() && lock_->try_enter(exclusive_)) return false;
  lock_->waiters_.push(&waiter_);
  return true;
}

void RwLock::leave(bool exclusive) {
  detail::WaiterQueue ready;
  {
    std::lock_guard lock(state_);
    if (exclusive)
      writer_ = false;
    else
      --readers_;
    while (!waiters_.empty() && try_enter(waiters_.head->exclusive)) ready.push(waiters_.pop());
  }
  wake(ready);
}

RwLock::Guard& RwLock::Guard::operator=(Guard&& other) noexcept {
  if (this != &other) {
    release();
    lock_ = std::exchange(other.lock_, nullptr);
    exclusive_ = other.exclusive_;
  }
  return *this;
}

void RwLock::Guard::release() {
  if (RwLock* lock = std::exchange(lock_, nullptr)) lock->leave(exclusive_);
}

// --- Semaphore ---

bool Semaphore::Awaiter::await_ready() {
  std::lock_guard lock(semaphore_->state_);
  if (!semaphore_->waiters_.empty() || semaphore_->count_ < count_) return false;
  semaphore_->count_ -= count_;
  return true;
}

bool Semaphore::Awaiter::await_suspend(std::coroutine_handle<> handle) {
  waiter_.worker = Worker::current();
  waiter_.handle = handle;
  waiter_.count = count_;
  std::lock_guard lock(semaphore_->state_);
  if (semaphore_->waiters_.empty() && semaphore_->count_ >= count_) {
    semaphore_->count_ -= count_;
    return false;
  }
  semaphore_->waiters_.push(&waiter_);
  return true;
}

void Semaphore::release(uint64_t count) {
  detail::WaiterQueue ready;
  {
    std::lock_guard lock(state_);
    count_ += count;
    while (!waiters_.empty() && count_ >= waiters_.head->count) {
      count_ -= waiters_.head->count;
      ready.push(waiters_.pop());
    }
  }
  wake(ready);
}

// --- InOrder ---

struct InOrder::Piece {
  uint64_t number;
  Task<void> work;
  std::exception_ptr error;
  Worker* worker = nullptr;
  std::coroutine_handle<> handle;
  Piece* next = nullptr;
};

// Gives true to whom the work is left, false when another has done it.
struct InOrder::Arrival {
  InOrder& order;
  Piece& piece;
  bool leads = false;
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    piece.worker = Worker::current();
    piece.handle = handle;
    std::lock_guard lock(order.state_);
    if (!order.busy_ && order.next_ == piece.number) {
      order.busy_ = true;
      leads = true;
      return false;
    }
    piece.next = order.waiting_;
    order.waiting_ = &piece;
    return true;
  }
  bool await_resume() const noexcept { return leads; }
};

Task<void> InOrder::run(uint64_t number, Task<void> work) {
  Piece own{.number = number, .work = std::move(work), .error = {}, .handle = {}};
  const bool leads = co_await Arrival{*this, own};
  for (Piece* piece = leads ? &own : nullptr; piece != nullptr;) {
    try {
      co_await piece->work;
    } catch (...) {
      piece->error = std::current_exception();
    }
    Piece* const done = piece;
    piece = finish(piece);
    // It lives in the frame of who waits: not to be touched once that one may go on.
    if (done != &own) done->worker->post(done->handle);
  }
  if (own.error) std::rethrow_exception(own.error);
}

// The piece that is due next, when it has been brought.
InOrder::Piece* InOrder::finish(Piece* piece) {
  std::lock_guard lock(state_);
  next_ = piece->number + 1;
  for (Piece** at = &waiting_; *at != nullptr; at = &(*at)->next) {
    if ((*at)->number != next_) continue;
    Piece* const found = *at;
    *at = found->next;
    return found;
  }
  busy_ = false;
  return nullptr;
}

// --- RangeLock ---

namespace {

bool conflict(const RangeLock::Entry& a, const RangeLock::Entry& b) {
  return (a.exclusive || b.exclusive) && a.begin < b.end && b.begin < a.end;
}

}  // namespace

bool RangeLock::conflicts_before(const Entry& entry) const {
  for (const Entry* at = entry.prev; at != nullptr; at = at->prev)
    if (conflict(*at, entry)) return true;
  return false;
}

RangeLock::Awaiter RangeLock::acquire(Guard& guard, uint64_t offset, uint64_t length,
                                      bool exclusive) {
  guard.entry_.begin = offset;
  guard.entry_.end = offset + length;
  guard.entry_.exclusive = exclusive;
  return Awaiter(this, &guard);
}

bool RangeLock::Awaiter::await_ready() { return false; }

bool RangeLock::Awaiter::await_suspend(std::coroutine_handle<> handle) {
  Entry& entry = guard_->entry_;
  entry.worker = Worker::current();
  entry.handle = handle;
  guard_->lock_ = lock_;
  std::lock_guard lock(lock_->state_);
  entry.prev = lock_->tail_;
  entry.next = nullptr;
  (lock_->tail_ != nullptr ? lock_->tail_->next : lock_->head_) = &entry;
  lock_->tail_ = &entry;
  entry.granted = !lock_->conflicts_before(entry);
  return !entry.granted;
}

void RangeLock::unlink(Entry& entry) {
  (entry.prev != nullptr ? entry.prev->next : head_) = entry.next;
  (entry.next != nullptr ? entry.next->prev : tail_) = entry.prev;
}

void RangeLock::Guard::release() {
  RangeLock* lock = std::exchange(lock_, nullptr);
  if (lock == nullptr) return;
  std::lock_guard guard(lock->state_);
  Entry* at = entry_.next;
  lock->unlink(entry_);
  for (; at != nullptr; at = at->next) {
    if (at->granted || !conflict(*at, entry_) || lock->conflicts_before(*at)) continue;
    at->granted = true;
    at->worker->post(at->handle);
  }
}

}  // namespace cairn
