#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "async/sync.h"
#include "async/task.h"
#include "base/large_buffer.h"
#include "protocol/nvme/device.h"

namespace cairn::nvme {

// Which addresses are in use, of those that a device can reach. Never address 0.
class AddressSpace {
 public:
  explicit AddressSpace(const std::vector<AddressRange>& ranges);
  enum class End { kLow, kHigh };
  // LENGTH bytes, a multiple of UNIT, at a multiple of UNIT (a power of two). What lasts is taken
  // from the low end, what is given back soon from the high one. Throws kNoSpace.
  uint64_t take(uint64_t length, uint64_t unit, End end);
  void give_back(uint64_t first, uint64_t length);

 private:
  std::map<uint64_t, uint64_t> free_;  // first → last
};

// The memory that a device may reach. From any thread; outlives its mappings.
class DmaSpace {
 public:
  explicit DmaSpace(Device& device) : device_(device), addresses_(device.ranges()) {}
  DmaSpace(const DmaSpace&) = delete;

  // A range that the device reaches until this goes.
  class Mapping {
   public:
    Mapping() = default;
    Mapping(Mapping&& other) noexcept { *this = std::move(other); }
    Mapping& operator=(Mapping&& other) noexcept {
      std::swap(space_, other.space_);
      std::swap(first_, other.first_);
      std::swap(length_, other.length_);
      std::swap(skipped_, other.skipped_);
      return *this;
    }
    ~Mapping() {
      if (space_ != nullptr) space_->unmap(first_, length_);
    }
    // Of the first byte.
    uint64_t iova() const { return first_ + skipped_; }

   private:
    friend class DmaSpace;
    DmaSpace* space_ = nullptr;
    uint64_t first_ = 0, length_ = 0;
    uint64_t skipped_ = 0;  // bytes before, in its first page
  };
  // MEMORY need not be aligned: its whole pages are mapped. Throws as Device::map().
  Mapping map(ByteSpan memory, bool writable, AddressSpace::End end);

 private:
  void unmap(uint64_t first, uint64_t length) noexcept;
  Device& device_;
  std::mutex mutex_;
  AddressSpace addresses_;
};

// Memory of our own that the device reaches, all zeroes at first.
class DmaMemory {
 public:
  DmaMemory() = default;
  // Throws kNoMemory with what to do about it when no more memory may be locked.
  DmaMemory(DmaSpace& space, size_t bytes);
  DmaMemory(DmaMemory&&) noexcept = default;
  DmaMemory& operator=(DmaMemory&&) noexcept = default;

  MutableByteSpan span() { return buffer_.span(); }
  uint64_t iova() const { return mapping_.iova(); }

 private:
  LargeBuffer buffer_;  // goes after the mapping
  DmaSpace::Mapping mapping_;
};

// Buffers of kBytes that the device reaches, for data whose own memory is not worth a mapping. They
// are mapped once, so many at a time, kept, and lent out. From any worker.
class BouncePool {
 public:
  static constexpr size_t kBytes = 128 << 10;

  // Maps the first buffers. Throws as DmaMemory.
  explicit BouncePool(DmaSpace& space);
  BouncePool(const BouncePool&) = delete;

  // A buffer until it goes.
  class Loan {
   public:
    Loan() = default;
    Loan(Loan&& other) noexcept { *this = std::move(other); }
    Loan& operator=(Loan&& other) noexcept {
      std::swap(pool_, other.pool_);
      std::swap(place_, other.place_);
      return *this;
    }
    ~Loan() {
      if (pool_ != nullptr) pool_->take_back(place_);
    }
    MutableByteSpan span() const { return {place_.data, kBytes}; }
    uint64_t iova() const { return place_.iova; }

   private:
    friend class BouncePool;
    struct Place {
      std::byte* data = nullptr;
      uint64_t iova = 0;
    };
    BouncePool* pool_ = nullptr;
    Place place_;
  };
  // Waits while all are lent out and no more can be mapped.
  Task<Loan> borrow();

 private:
  static constexpr size_t kAtATime = 16, kMostChunks = 2;

  void grow();
  void take_back(Loan::Place place);
  DmaSpace& space_;
  Semaphore free_{0};
  std::mutex mutex_;
  std::vector<DmaMemory> chunks_;
  std::vector<Loan::Place> idle_;
  size_t promised_ = 0;  // borrowers that will take one of idle_, or wait for one
  bool growing_ = true;  // more can be mapped
};

}  // namespace cairn::nvme
