#pragma once

#include <cstddef>
#include <new>
#include <utility>

#include "base/arith.h"
#include "base/bytes.h"
#include "platform/memory.h"

namespace cairn {

// Memory for many bytes that are moved at a time: page-aligned, zeroes at first, given back to the
// system when it goes. Large pages are asked for where it is a whole number of them: one page fault
// takes the place of 512.
class LargeBuffer {
 public:
  LargeBuffer() = default;
  explicit LargeBuffer(size_t size) : size_(size) {
    if (size == 0) return;
    mapped_ = align_up(size, kPageBytes);
    data_ =
        static_cast<std::byte*>(platform::allocate_pages(mapped_, mapped_ % kLargePageBytes == 0));
    if (data_ == nullptr) throw std::bad_alloc();
  }
  LargeBuffer(LargeBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        mapped_(std::exchange(other.mapped_, 0)) {}
  LargeBuffer& operator=(LargeBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(mapped_, other.mapped_);
    return *this;
  }
  ~LargeBuffer() {
    if (data_ != nullptr) platform::free_pages(data_, mapped_);
  }

  MutableByteSpan span() { return {data_, size_}; }
  size_t size() const { return size_; }

 private:
  static constexpr size_t kPageBytes = 4096, kLargePageBytes = 2 << 20;

  std::byte* data_ = nullptr;
  size_t size_ = 0;
  size_t mapped_ = 0;
};

}  // namespace cairn
