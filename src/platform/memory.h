#pragma once

#include <cstddef>

namespace cairn::platform {

// BYTES, a whole number of pages, that are zero. With LARGE they begin at a multiple of 2 MiB, and
// large pages are asked for. Null: there are none.
void* allocate_pages(size_t bytes, bool large);
void free_pages(void* pages, size_t bytes) noexcept;

// BYTES, a multiple of ALIGNMENT, that begin at one. Null: there are none.
void* allocate_aligned(size_t alignment, size_t bytes);
void free_aligned(void* memory) noexcept;

// Overwrites what is to be found by nobody, also where the compiler sees no reader.
void wipe(void* bytes, size_t count) noexcept;

// The memory of the machine.
size_t memory_bytes();

}  // namespace cairn::platform
