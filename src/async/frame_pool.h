#pragma once

#include <cstddef>

namespace cairn::detail {

// Coroutine frames come from free lists of the thread: a request costs no trip to the allocator.
void* allocate_frame(size_t bytes);
void free_frame(void* frame, size_t bytes) noexcept;

}  // namespace cairn::detail
