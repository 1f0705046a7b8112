#include "protocol/byte_stock.h"

#include <algorithm>
#include <bit>
#include <iterator>

namespace cairn {
namespace {

constexpr size_t kLeastLargeBytes = 32 << 10;
constexpr size_t kMostIdleBytes = 8 << 20;

}  // namespace

ByteStock::Bytes::Bytes(size_t size) : size_(size) {
  if (size < kLeastLargeBytes)
    small_ = std::make_unique_for_overwrite<std::byte[]>(size);
  else
    large_ = all().take(std::bit_ceil(size));
}

ByteStock::Bytes::~Bytes() {
  if (large_.size() != 0) all().give_back(std::move(large_));
}

ByteStock& ByteStock::all() {
  // Not destroyed: libraries may give bytes back until the process ends.
  static auto& stock = *new ByteStock;
  return stock;
}

LargeBuffer ByteStock::take(size_t size) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(idle_.rbegin(), idle_.rend(), [size](const LargeBuffer& each) {
      return each.size() == size;
    });
    if (found != idle_.rend()) {
      LargeBuffer buffer = std::move(*found);
      idle_.erase(std::next(found).base());
      idle_bytes_ -= size;
      return buffer;
    }
  }
  return LargeBuffer(size);
}

void ByteStock::give_back(LargeBuffer buffer) {
  std::vector<LargeBuffer> surplus;
  const std::lock_guard lock(mutex_);  // goes before SURPLUS does
  idle_bytes_ += buffer.size();
  idle_.push_back(std::move(buffer));
  while (idle_bytes_ > kMostIdleBytes) {
    idle_bytes_ -= idle_.front().size();
    surplus.push_back(std::move(idle_.front()));
    idle_.erase(idle_.begin());
  }
}

}  // namespace cairn
