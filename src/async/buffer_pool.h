#pragma once

#include <mutex>
#include <utility>
#include <vector>

#include "async/sync.h"
#include "base/large_buffer.h"

namespace cairn {

// Buffers of one size, so many at most, that are lent out. They are made when they are needed; the
// one that came back last goes out first, as its bytes are likely to be in the processor's cache.
// From any worker. Outlives what it lends.
class BufferPool {
 public:
  // A buffer until it goes.
  class Loan {
   public:
    Loan() = default;
    Loan(Loan&& other) noexcept
        : pool_(std::exchange(other.pool_, nullptr)), buffer_(std::move(other.buffer_)) {}
    Loan& operator=(Loan&& other) noexcept {
      std::swap(pool_, other.pool_);
      std::swap(buffer_, other.buffer_);
      return *this;
    }
    ~Loan() {
      if (pool_ != nullptr) pool_->take_back(std::move(buffer_));
    }
    explicit operator bool() const { return pool_ != nullptr; }
    MutableByteSpan span() { return buffer_.span(); }

   private:
    friend class BufferPool;
    explicit Loan(BufferPool* pool) : pool_(pool) {}
    BufferPool* pool_ = nullptr;
    LargeBuffer buffer_;
  };

  BufferPool(size_t bytes, unsigned count) : bytes_(bytes), free_(count) { idle_.reserve(count); }
  BufferPool(const BufferPool&) = delete;

  // Waits while all are lent out; who came first is served first.
  Task<Loan> borrow() {
    co_await free_.acquire();
    Loan loan(this);
    {
      const std::lock_guard lock(state_);
      if (!idle_.empty()) {
        loan.buffer_ = std::move(idle_.back());
        idle_.pop_back();
      }
    }
    if (loan.buffer_.size() == 0) loan.buffer_ = LargeBuffer(bytes_);
    co_return loan;
  }

 private:
  void take_back(LargeBuffer buffer) {
    {
      const std::lock_guard lock(state_);
      idle_.push_back(std::move(buffer));
    }
    free_.release();
  }

  const size_t bytes_;
  Semaphore free_;
  std::mutex state_;
  std::vector<LargeBuffer> idle_;
};

}  // namespace cairn
