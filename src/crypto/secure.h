#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "platform/memory.h"

namespace cairn {

// Wipes memory before it gives it back.
template <class T>
struct WipingAllocator {
  using value_type = T;
  WipingAllocator() = default;
  template <class U>
  WipingAllocator(const WipingAllocator<U>&) {}
  T* allocate(size_t count) { return std::allocator<T>().allocate(count); }
  void deallocate(T* data, size_t count) {
    platform::wipe(data, count * sizeof(T));
    std::allocator<T>().deallocate(data, count);
  }
  bool operator==(const WipingAllocator&) const { return true; }
};

// Keys, passphrases and what is derived from them.
using SecureBytes = std::vector<std::byte, WipingAllocator<std::byte>>;

// LENGTH random bytes of the kernel's generator. Throws kIo when there are none.
void random_bytes(MutableByteSpan out);
// Compares in a time that does not depend on the contents.
bool equal_in_constant_time(ByteSpan a, ByteSpan b);

}  // namespace cairn
