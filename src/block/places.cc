#include "block/places.h"

#include <algorithm>

namespace cairn {

void Places::reset(uint32_t limit, uint32_t used) {
  const std::lock_guard lock(mutex_);
  used_.assign(limit, false);
  std::fill_n(used_.begin(), std::min(limit, used), true);
  end_ = lowest_ = used;
}

void Places::set_limit(uint32_t limit, bool used) {
  const std::lock_guard lock(mutex_);
  used_.resize(limit, used);
  if (used) end_ = limit;
}

void Places::use(uint32_t place) {
  const std::lock_guard lock(mutex_);
  if (place >= used_.size()) return;
  used_[place] = true;
  end_ = std::max(end_, place + 1);
}

uint32_t Places::end() const {
  const std::lock_guard lock(mutex_);
  return end_;
}

void Places::raise_end(uint32_t end) {
  const std::lock_guard lock(mutex_);
  end_ = std::max(end_, end);
}

uint32_t Places::take(uint64_t most, uint32_t* count) {
  const std::lock_guard lock(mutex_);
  uint32_t first = end_;
  if (next_ == Next::kFree || first >= used_.size()) {
    const auto from = used_.begin() + std::min<ptrdiff_t>(lowest_, std::ssize(used_));
    lowest_ = first = static_cast<uint32_t>(std::find(from, used_.end(), false) - used_.begin());
  }
  uint32_t taken = 0;
  while (taken < most && first + taken < used_.size() && !used_[first + taken])
    used_[first + taken++] = true;
  *count = taken;
  end_ = std::max(end_, first + taken);
  return first;
}

void Places::free_locked(uint32_t place) {
  if (place >= used_.size()) return;
  used_[place] = false;
  lowest_ = std::min(lowest_, place);
}

void Places::give_back(uint32_t first, uint32_t count) {
  const std::lock_guard lock(mutex_);
  for (uint32_t i = 0; i < count; ++i) free_locked(first + i);
}

void Places::give_up(uint32_t place) {
  const std::lock_guard lock(mutex_);
  given_up_.push_back(place);
}

Task<bool> Places::free_after(Task<void> storing) {
  const Mutex::Guard guard = co_await freeing_.lock();
  std::vector<uint32_t> freed;
  {
    const std::lock_guard lock(mutex_);
    freed.swap(given_up_);
  }
  co_await storing;
  const std::lock_guard lock(mutex_);
  for (const uint32_t place : freed) free_locked(place);
  co_return !freed.empty();
}

}  // namespace cairn
