#include "protocol/web/read_cache.h"

#include <algorithm>
#include <cstring>

#include "async/runtime.h"
#include "base/arith.h"

namespace cairn::web {
namespace {

constexpr uint64_t kBlockBytes = 64 << 10;    // the least that is fetched
constexpr uint64_t kDirectBytes = 256 << 10;  // reads from here on need no cache
// With so many readers those of a block or more are ahead of each other, and need no cache either:
// theirs is memory enough.
constexpr unsigned kManyReaders = 16;
constexpr uint64_t kMostAhead = 6 << 20;
constexpr uint64_t kMostHeld = 12 << 20;
constexpr uint64_t kAheadPieceBytes = 2 << 20;
// Who reads long pieces several at a time has a moment with a single one now and then.
constexpr unsigned kAloneReads = 4;

}  // namespace

// Waits until a segment has come. Whether it had is looked up under the cache's lock.
struct ReadCache::Arrival {
  ReadCache& cache;
  Segment& segment;
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    const std::lock_guard lock(cache.state_);
    if (segment.ready) return false;
    segment.waiters.push_back({Worker::current(), handle});
    return true;
  }
  void await_resume() const noexcept {}
};

ReadCache::ReadCache(RemoteFile& file) : file_(file), size_(file.size().value_or(0)) {}

ReadCache::~ReadCache() = default;

void ReadCache::put(uint64_t offset, std::vector<std::byte> bytes) {
  if (bytes.empty()) return;
  const std::lock_guard lock(state_);
  auto segment = std::make_shared<Segment>();
  segment->begin = offset;
  segment->size = bytes.size();
  segment->bytes = std::make_unique_for_overwrite<std::byte[]>(bytes.size());
  std::memcpy(segment->bytes.get(), bytes.data(), bytes.size());
  segment->ready = true;
  held_ += segment->size;
  segments_.emplace(offset, std::move(segment));
}

Task<void> ReadCache::read(uint64_t offset, MutableByteSpan out) {
  {
    const std::lock_guard lock(state_);
    ++readers_;
  }
  std::exception_ptr error;
  bool first = true;
  while (!out.empty() && !error) {
    SegmentPtr segment;
    size_t direct = 0;
    std::vector<SegmentPtr> started;
    {
      const std::lock_guard lock(state_);
      segment = find(offset);
      if (!segment) {
        const uint64_t next = next_begin(offset);
        if (is_long(out.size()))
          direct = std::min<uint64_t>(out.size(), next - offset);
        else
          segment = add(align_down(offset, kBlockBytes),
                        std::min(align_up(offset + out.size(), kBlockBytes), next), &started);
      }
      if (std::exchange(first, false)) follow(offset, out.size(), &started);
    }
    // Without the lock: a fetch may end at once.
    for (const SegmentPtr& each : started) each->fetch->start();
    try {
      size_t part = direct;
      if (direct != 0) {
        co_await file_.read(offset, out.first(direct));
      } else {
        co_await Arrival{*this, *segment};
        if (segment->error) std::rethrow_exception(segment->error);
        const size_t skip = offset - segment->begin;
        part = std::min(out.size(), segment->size - skip);
        std::memcpy(out.data(), segment->bytes.get() + skip, part);
      }
      offset += part;
      out = out.subspan(part);
    } catch (...) {
      error = std::current_exception();
    }
  }
  const std::lock_guard lock(state_);
  --readers_;
  if (error) std::rethrow_exception(error);
}

bool ReadCache::is_long(uint64_t length) const {
  return length >= (readers_ < kManyReaders ? kDirectBytes : kBlockBytes);
}

ReadCache::SegmentPtr ReadCache::find(uint64_t offset) {
  auto after = segments_.upper_bound(offset);
  if (after == segments_.begin()) return nullptr;
  const SegmentPtr& segment = std::prev(after)->second;
  if (segment->end() <= offset) return nullptr;
  segment->last_use = ++clock_;
  return segment;
}

uint64_t ReadCache::next_begin(uint64_t offset) const {
  const auto after = segments_.upper_bound(offset);
  return after == segments_.end() ? size_ : after->first;
}

// BEGIN may be inside of a segment before it, END is not past the next one.
ReadCache::SegmentPtr ReadCache::add(uint64_t begin, uint64_t end,
                                     std::vector<SegmentPtr>* started) {
  const auto after = segments_.upper_bound(end - 1);
  if (after != segments_.begin()) begin = std::max(begin, std::prev(after)->second->end());
  auto segment = std::make_shared<Segment>();
  segment->begin = begin;
  segment->size = end - begin;
  segment->bytes = std::make_unique_for_overwrite<std::byte[]>(segment->size);
  segment->last_use = ++clock_;
  Segment* raw = segment.get();
  segment->fetch = std::make_unique<Fetch>(file_, Fetch::Kind::kRange, begin,
                                           MutableByteSpan(segment->bytes.get(), segment->size),
                                           [this, raw] { finished(*raw); });
  held_ += segment->size;
  segments_.emplace(begin, segment);
  started->push_back(segment);
  make_room();
  return segment;
}

void ReadCache::follow(uint64_t offset, uint64_t length, std::vector<SegmentPtr>* started) {
  const uint64_t ahead = file_.settings().readahead;
  Stream* stream = &streams_[0];
  for (Stream& each : streams_) {
    if (each.next == offset) {
      stream = &each;
      break;
    }
    if (each.last_use < stream->last_use) stream = &each;
  }
  const bool goes_on = stream->next == offset;
  stream->window = goes_on ? std::clamp(stream->window * 2, ahead, std::max(ahead, kMostAhead)) : 0;
  stream->next = offset + length;
  stream->last_use = ++clock_;
  // Several long reads at once are ahead of each other already.
  const bool is_direct = is_long(length);
  stream->alone = is_direct && readers_ == 1 && goes_on ? stream->alone + 1 : 0;
  if (!goes_on || ahead == 0 || (is_direct && stream->alone < kAloneReads)) return;
  read_ahead(stream->next, stream->window, started);
}

void ReadCache::read_ahead(uint64_t from, uint64_t window, std::vector<SegmentPtr>* started) {
  const uint64_t end = std::min(size_, from + std::min(window, kMostHeld / 2));
  while (from < end) {
    if (const SegmentPtr segment = find(from)) {
      from = segment->end();
      continue;
    }
    const uint64_t until = std::min({end, next_begin(from), from + kAheadPieceBytes});
    // Not a small piece each time: a quarter of the window at least.
    if (until == end && until - from < window / 4 && end != size_) return;
    from = add(from, until, started)->end();
  }
}

// Drops what was not used for longest; what is on its way stays.
void ReadCache::make_room() {
  while (held_ > kMostHeld) {
    auto oldest = segments_.end();
    for (auto at = segments_.begin(); at != segments_.end(); ++at)
      if (at->second->ready &&
          (oldest == segments_.end() || at->second->last_use < oldest->second->last_use))
        oldest = at;
    if (oldest == segments_.end()) return;
    held_ -= oldest->second->size;
    segments_.erase(oldest);
  }
}

// On the client's thread.
void ReadCache::finished(Segment& segment) {
  std::vector<Waiter> waiters;
  // Keeps the segment, and with it the function that is running, until the end.
  SegmentPtr self;
  {
    const std::lock_guard lock(state_);
    const auto found = segments_.find(segment.begin);
    self = found->second;
    segment.ready = true;
    segment.error = segment.fetch->error();
    // A later read there tries again.
    if (segment.error) {
      held_ -= segment.size;
      segments_.erase(found);
    }
    waiters.swap(segment.waiters);
  }
  for (const Waiter& waiter : waiters) waiter.worker->post(waiter.handle);
}

}  // namespace cairn::web
