#include "platform/memory.h"

#include <malloc.h>

#include "platform/windows/descriptors.h"

namespace cairn::platform {

// Large pages need a privilege that programs do not have.
void* allocate_pages(size_t bytes, bool) {
  return ::VirtualAlloc(nullptr, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
}

void free_pages(void* pages, size_t) noexcept { ::VirtualFree(pages, 0, MEM_RELEASE); }

void* allocate_aligned(size_t alignment, size_t bytes) {
  return ::_aligned_malloc(bytes, alignment);
}
void free_aligned(void* memory) noexcept { ::_aligned_free(memory); }

void wipe(void* bytes, size_t count) noexcept { ::SecureZeroMemory(bytes, count); }

size_t memory_bytes() {
  MEMORYSTATUSEX found{};
  found.dwLength = sizeof found;
  return ::GlobalMemoryStatusEx(&found) != 0 ? found.ullTotalPhys : 0;
}

}  // namespace cairn::platform
