#include "async/frame_pool.h"

#include <array>
#include <new>
#include <utility>

#include "async/frame_limit.h"

namespace cairn::detail {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CAIRN_PLAIN_FRAMES 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CAIRN_PLAIN_FRAMES 1
#endif
#endif

#ifdef CAIRN_PLAIN_FRAMES
// Sanitizers are to see every frame come and go.
void* allocate_frame(size_t bytes) { return ::operator new(bytes); }
void free_frame(void* frame, size_t) noexcept { ::operator delete(frame); }
void keep_many_frames() noexcept {}
#else

namespace {

constexpr size_t kStep = 64;
constexpr size_t kClasses = 32;  // frames up to 2 KiB
constexpr size_t kFew = 16;      // kept of each class for reuse
constexpr size_t kMany = 128;

struct Free {
  Free* next;
};

struct Cache {
  std::array<Free*, kClasses> heads{};
  std::array<size_t, kClasses> counts{};
  size_t most = kFew;
  bool gone = false;
  ~Cache() {
    gone = true;
    for (Free*& head : heads)
      while (head != nullptr) ::operator delete(std::exchange(head, head->next));
  }
};

thread_local Cache cache;

}  // namespace

void* allocate_frame(size_t bytes) {
  const size_t size_class = (bytes - 1) / kStep;
  if (size_class >= kClasses) return ::operator new(bytes);
  Free*& head = cache.heads[size_class];
  if (head == nullptr) return ::operator new((size_class + 1) * kStep);
  --cache.counts[size_class];
  Free* frame = head;
  head = frame->next;
  return frame;
}

void free_frame(void* frame, size_t bytes) noexcept {
  const size_t size_class = (bytes - 1) / kStep;
  if (size_class >= kClasses || cache.gone || cache.counts[size_class] >= cache.most) {
    ::operator delete(frame);
    return;
  }
  auto* free = static_cast<Free*>(frame);
  free->next = cache.heads[size_class];
  cache.heads[size_class] = free;
  ++cache.counts[size_class];
}

void keep_many_frames() noexcept { cache.most = kMany; }

#endif

}  // namespace cairn::detail
