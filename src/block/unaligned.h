#pragma once

#include <cstdint>

#include "block/extent.h"

namespace cairn {

// Whether a buffer at DATA may be handed to a node with these LIMITS.
inline bool memory_fits(const void* data, const Limits& limits) {
  return limits.memory_alignment <= 1 ||
         reinterpret_cast<uintptr_t>(data) % limits.memory_alignment == 0;
}

}  // namespace cairn
