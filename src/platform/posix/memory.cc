#include "platform/memory.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

namespace cairn::platform {
namespace {

constexpr size_t kLargePageBytes = 2 << 20;

}  // namespace

void* allocate_pages(size_t bytes, bool large) {
  // The system aligns to small pages only: what is too much at both ends is given back.
  const size_t more = large ? kLargePageBytes : 0;
  void* const all =
      ::mmap(nullptr, bytes + more, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) return nullptr;
  auto* data = static_cast<char*>(all);
  if (!large) return data;
  const size_t past = reinterpret_cast<uintptr_t>(all) % kLargePageBytes;
  const size_t before = past == 0 ? 0 : kLargePageBytes - past;
  if (before != 0) ::munmap(data, before);
  data += before;
  if (before != more) ::munmap(data + bytes, more - before);
#ifdef MADV_HUGEPAGE
  // Without large pages it is slower.
  ::madvise(data, bytes, MADV_HUGEPAGE);
#endif
  return data;
}

void free_pages(void* pages, size_t bytes) noexcept { ::munmap(pages, bytes); }

void* allocate_aligned(size_t alignment, size_t bytes) {
  return std::aligned_alloc(alignment, bytes);
}
void free_aligned(void* memory) noexcept { std::free(memory); }

void wipe(void* bytes, size_t count) noexcept {
#ifdef __APPLE__
  ::memset_s(bytes, count, 0, count);
#else
  ::explicit_bzero(bytes, count);
#endif
}

size_t memory_bytes() {
  return static_cast<size_t>(::sysconf(_SC_PHYS_PAGES)) *
         static_cast<size_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace cairn::platform
