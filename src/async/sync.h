#pragma once

#include <coroutine>
#include <cstdint>
#include <list>
#include <mutex>
#include <utility>

#include "async/runtime.h"
#include "async/task.h"

namespace cairn {

// The locks below may be held over a co_await, are fair (first come, first served) and may be used
// from any number of workers: what waits is resumed on its own worker. Awaiting one gives a
// guard that releases when it is destroyed.

namespace detail {
// One waiting coroutine; lives in its frame.
struct Waiter {
  Worker* worker = nullptr;
  std::coroutine_handle<> handle;
  Waiter* next = nullptr;
  bool exclusive = true;
  uint64_t count = 0;
};
struct WaiterQueue {
  Waiter* head = nullptr;
  Waiter* tail = nullptr;
  bool empty() const { return head == nullptr; }
  void push(Waiter* waiter);
  Waiter* pop();
};
}  // namespace detail

// Held for a moment, as it mostly is, it is waited for by spinning: to suspend for it, and to be
// woken on another worker, takes longer, and all others queue after one that is not awake yet.
class Mutex {
 public:
  class Guard {
   public:
    Guard() = default;
    explicit Guard(Mutex* mutex) : mutex_(mutex) {}
    Guard(Guard&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)) {}
    Guard& operator=(Guard&& other) noexcept;
    ~Guard() { release(); }
    void release();

   private:
    Mutex* mutex_ = nullptr;
  };
  class Awaiter {
   public:
    explicit Awaiter(Mutex* mutex) : mutex_(mutex) {}
    bool await_ready();
    bool await_suspend(std::coroutine_handle<> handle);
    Guard await_resume() { return Guard(mutex_); }

   private:
    Mutex* mutex_;
    detail::Waiter waiter_;
  };
  // auto guard = co_await mutex.lock();
  Awaiter lock() { return Awaiter(this); }

 private:
  bool try_lock();
  bool worth_spinning();
  void unlock();
  std::mutex state_;
  bool locked_ = false;
  Worker* holder_ = nullptr;  // where it was taken
  detail::WaiterQueue waiters_;
};

class RwLock {
 public:
  class Guard {
   public:
    Guard() = default;
    Guard(RwLock* lock, bool exclusive) : lock_(lock), exclusive_(exclusive) {}
    Guard(Guard&& other) noexcept
        : lock_(std::exchange(other.lock_, nullptr)), exclusive_(other.exclusive_) {}
    Guard& operator=(Guard&& other) noexcept;
    ~Guard() { release(); }
    void release();

   private:
    RwLock* lock_ = nullptr;
    bool exclusive_ = false;
  };
  class Awaiter {
   public:
    Awaiter(RwLock* lock, bool exclusive) : lock_(lock), exclusive_(exclusive) {}
    bool await_ready();
    bool await_suspend(std::coroutine_handle<> handle);
    Guard await_resume() { return Guard(lock_, exclusive_); }

   private:
    RwLock* lock_;
    bool exclusive_;
    detail::Waiter waiter_;
  };
  Awaiter shared() { return Awaiter(this, false); }
  Awaiter exclusive() { return Awaiter(this, true); }

 private:
  bool try_enter(bool exclusive);  // state_ is held
  void leave(bool exclusive);
  std::mutex state_;
  unsigned readers_ = 0;
  bool writer_ = false;
  detail::WaiterQueue waiters_;
};

class Semaphore {
 public:
  explicit Semaphore(uint64_t count) : count_(count) {}
  class Awaiter {
   public:
    Awaiter(Semaphore* semaphore, uint64_t count) : semaphore_(semaphore), count_(count) {}
    bool await_ready();
    bool await_suspend(std::coroutine_handle<> handle);
    void await_resume() {}

   private:
    Semaphore* semaphore_;
    uint64_t count_;
    detail::Waiter waiter_;
  };
  // Takes COUNT units; release() gives them back.
  Awaiter acquire(uint64_t count = 1) { return Awaiter(this, count); }
  void release(uint64_t count = 1);

 private:
  std::mutex state_;
  uint64_t count_;
  detail::WaiterQueue waiters_;
};

// Runs numbered pieces of work one after the other, in the order of their numbers. Who brings
// the piece that is due continues with the next ones that others have brought meanwhile, so that no
// thread has to be woken between two of them.
class InOrder {
 public:
  // Returns when WORK number NUMBER has ended and throws what it threw; the numbers after it go on
  // all the same. Numbers begin at 0 and none may be left out. WORK may run on another worker.
  Task<void> run(uint64_t number, Task<void> work);

 private:
  struct Piece;
  struct Arrival;
  Piece* finish(Piece* piece);
  std::mutex state_;
  uint64_t next_ = 0;
  bool busy_ = false;
  Piece* waiting_ = nullptr;
};

// Locks byte ranges of one address space. Ranges that overlap conflict unless both are shared;
// an earlier waiter is never overtaken by a later one with which it conflicts.
class RangeLock {
 public:
  struct Entry {
    uint64_t begin = 0;
    uint64_t end = 0;
    bool exclusive = false;
    bool granted = false;
    Worker* worker = nullptr;
    std::coroutine_handle<> handle;
    Entry* prev = nullptr;
    Entry* next = nullptr;
  };
  class Guard {
   public:
    Guard() = default;
    Guard(const Guard&) = delete;
    ~Guard() { release(); }
    void release();

   private:
    friend class RangeLock;
    RangeLock* lock_ = nullptr;
    Entry entry_;
  };
  class Awaiter {
   public:
    Awaiter(RangeLock* lock, Guard* guard) : lock_(lock), guard_(guard) {}
    bool await_ready();
    bool await_suspend(std::coroutine_handle<> handle);
    void await_resume() {}

   private:
    RangeLock* lock_;
    Guard* guard_;
  };
  // RangeLock::Guard guard; co_await lock.acquire(guard, offset, length, exclusive);
  // The guard stands where it was made: its entry is linked into the lock.
  Awaiter acquire(Guard& guard, uint64_t offset, uint64_t length, bool exclusive);

 private:
  bool conflicts_before(const Entry& entry) const;  // state_ is held
  void unlink(Entry& entry);
  std::mutex state_;
  Entry* head_ = nullptr;
  Entry* tail_ = nullptr;
};

}  // namespace cairn
