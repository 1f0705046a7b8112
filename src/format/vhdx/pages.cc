#include "format/vhdx/pages.h"

#include <algorithm>
#include <cstring>

namespace cairn::vhdx {

namespace {
constexpr size_t kMaxPages = 8192;
}  // namespace

PagePtr Pages::try_get(uint64_t offset) {
  std::lock_guard lock(mutex_);
  const auto found = pages_.find(offset);
  return found != pages_.end() ? found->second : nullptr;
}

// One at a time: what is read must not be older than what was in memory a moment ago.
Task<PagePtr> Pages::get(uint64_t offset, bool first) {
  PagePtr page = try_get(offset);
  if (page) co_return page;
  Mutex::Guard guard = co_await loading_.lock();
  page = try_get(offset);
  if (page) co_return page;
  page = std::make_shared<Page>();
  page->offset = offset;
  page->first = first;
  co_await file_.read(offset, page->bytes);
  std::lock_guard lock(mutex_);
  make_room();
  pages_[offset] = page;
  co_return page;
}

void Pages::make_room() {
  if (pages_.size() < kMaxPages) return;
  std::erase_if(pages_, [](const auto& item) {
    return item.second.use_count() == 1 && !item.second->dirty && item.second->writers == 0;
  });
}

void Pages::mark(const PagePtr& page) {
  if (page->dirty) return;
  page->dirty = true;
  changed_.push_back(page);
  dirty_.store(changed_.size(), std::memory_order_relaxed);
}

void Pages::set_entry(const PagePtr& page, size_t index, uint64_t value) {
  auto& word = reinterpret_cast<uint64_t&>(page->bytes[index * 8]);
  std::atomic_ref<uint64_t>(word).store(value, std::memory_order_release);
  mark(page);
}

void Pages::set_bytes(const PagePtr& page, size_t at, ByteSpan bytes) {
  if (std::memcmp(page->bytes.data() + at, bytes.data(), bytes.size()) == 0) return;
  std::memcpy(page->bytes.data() + at, bytes.data(), bytes.size());
  mark(page);
}

bool Pages::changed() const {
  std::lock_guard lock(mutex_);
  return !changed_.empty() || !released_.empty();
}

Pages::Batch Pages::take() {
  std::lock_guard lock(mutex_);
  Batch batch;
  batch.released.swap(released_);
  batch.pages.reserve(changed_.size());
  for (const bool first : {true, false}) {
    for (const PagePtr& page : changed_) {
      if (page->first != first) continue;
      page->dirty = false;
      ++page->writers;
      Snapshot& snapshot = batch.pages.emplace_back();
      snapshot.bytes = page->bytes;
      snapshot.page = page;
    }
  }
  changed_.clear();
  dirty_.store(0, std::memory_order_relaxed);
  return batch;
}

void Pages::done(const Batch& batch, bool failed) {
  std::lock_guard lock(mutex_);
  for (const Snapshot& snapshot : batch.pages) {
    --snapshot.page->writers;
    if (failed) mark(snapshot.page);
  }
  if (failed) released_.insert(released_.end(), batch.released.begin(), batch.released.end());
}

void Pages::forget(uint64_t offset, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  std::erase_if(pages_, [&](const auto& item) {
    return item.first >= offset && item.first < offset + bytes && !item.second->dirty &&
           item.second->writers == 0;
  });
}

}  // namespace cairn::vhdx
