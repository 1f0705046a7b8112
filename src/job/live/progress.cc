#include "job/live/progress.h"

#include <algorithm>
#include <bit>

#include "base/arith.h"

namespace cairn::live {
namespace {

// As many regions as are worth a record each time one of them is written first: RAID takes 64 MiB
// of a terabyte as well.
constexpr uint64_t kLeastRegion = 1 << 20;
constexpr uint64_t kMostRegions = 16384;
// The bits of a backup are exact, and so are more.
constexpr uint64_t kMostClusters = 1 << 20;

uint64_t unit_for(uint64_t length, uint64_t most, uint64_t least) {
  return std::max(least, std::bit_ceil(length / most + (length % most != 0 ? 1 : 0)));
}

}  // namespace

uint64_t mirror_region_bytes(uint64_t length) {
  return unit_for(length, kMostRegions, kLeastRegion);
}

uint64_t kept_backup_cluster(uint64_t length) { return unit_for(length, kMostClusters, 1); }

Runs dirty_runs(const DirtyBitmap& bitmap) {
  Runs runs;
  const uint64_t length = bitmap.length();
  for (uint64_t at = 0; at < length;) {
    const DirtyBitmap::Run run = bitmap.run_at(at, length - at);
    if (run.length == 0) break;
    if (run.dirty) runs.emplace_back(at, run.length);
    at += run.length;
  }
  return runs;
}

JobProgress::JobProgress(ProgressStorePtr store, std::string id, uint64_t length,
                         uint64_t granularity, const DirtyBitmap* remaining)
    : store_(std::move(store)),
      id_(std::move(id)),
      open_(std::make_shared<DirtyBitmap>("", length, granularity)) {
  if (remaining == nullptr)
    open_->mark(0, length);
  else
    open_->merge(*remaining);
}

std::shared_ptr<DirtyBitmap> JobProgress::open() const {
  auto copy = std::make_shared<DirtyBitmap>("", open_->length(), open_->granularity());
  copy->merge(*open_);
  return copy;
}

Task<bool> JobProgress::end(bool switched) {
  if (!switched && store_->suspends()) {
    try {
      co_await settle();
    } catch (const Error&) {
      // It stays open.
    }
  }
  ended_.store(true);
  const bool stored = co_await store_->end(id_, switched);
  forgotten_.store(true);
  co_return stored;
}

// --- mirrors ---

MirrorProgress::MirrorProgress(ProgressStorePtr store, std::string id, NodePtr source,
                               NodePtr target, DirtyBitmapPtr dirty, const DirtyBitmap* remaining)
    : JobProgress(std::move(store), std::move(id), source->length(),
                  mirror_region_bytes(source->length()), remaining),
      source_(std::move(source)),
      target_(std::move(target)),
      dirty_(std::move(dirty)),
      regions_((open_->length() + open_->granularity() - 1) / open_->granularity()) {
  for (size_t i = 0; i < regions_.size(); ++i)
    regions_[i].open = regions_[i].stored = open_->run_at(i * open_->granularity(), 1).dirty;
}

// mutex_ is held.
template <class Change>
void MirrorProgress::each(uint64_t offset, uint64_t length, Change change) {
  if (length == 0) return;
  const uint64_t bytes = open_->granularity();
  const uint64_t end = std::min<uint64_t>((offset + length - 1) / bytes + 1, regions_.size());
  for (uint64_t i = offset / bytes; i < end; ++i) change(regions_[i], static_cast<size_t>(i));
}

Task<void> MirrorProgress::before(uint64_t offset, uint64_t length) {
  bool stored = true;
  {
    const std::lock_guard lock(mutex_);
    each(offset, length, [&](Region& region, size_t number) {
      ++region.under_way;
      region.touched = true;
      if (!std::exchange(region.open, true)) {
        open_->mark(number * open_->granularity(), 1);
        unstored_.push_back(number);
      }
      stored = stored && region.stored;
    });
  }
  if (!stored) co_await store_open(offset, length);
}

// The one that has the turn stores what has come for all.
Task<void> MirrorProgress::store_open(uint64_t offset, uint64_t length) {
  const auto turn = co_await storing_.lock();
  std::vector<size_t> numbers;
  {
    const std::lock_guard lock(mutex_);
    bool stored = true;
    each(offset, length, [&](Region& region, size_t) { stored = stored && region.stored; });
    if (stored) co_return;
    numbers.swap(unstored_);
  }
  std::sort(numbers.begin(), numbers.end());
  Runs runs;
  const uint64_t bytes = open_->granularity();
  for (const size_t number : numbers) {
    const uint64_t begin = number * bytes;
    const uint64_t size = std::min(bytes, open_->length() - begin);
    if (!runs.empty() && runs.back().first + runs.back().second == begin)
      runs.back().second += size;
    else
      runs.emplace_back(begin, size);
  }
  co_await store_->record(id_, true, std::move(runs));
  const std::lock_guard lock(mutex_);
  for (const size_t number : numbers) regions_[number].stored = true;
}

void MirrorProgress::after(uint64_t offset, uint64_t length) { dropped(offset, length); }

void MirrorProgress::taken(uint64_t offset, uint64_t length) {
  const std::lock_guard lock(mutex_);
  each(offset, length, [](Region& region, size_t) {
    ++region.under_way;
    region.touched = true;
  });
}

void MirrorProgress::dropped(uint64_t offset, uint64_t length) {
  const std::lock_guard lock(mutex_);
  each(offset, length, [](Region& region, size_t) { --region.under_way; });
}

// The source is flushed as well: after a loss of power it could otherwise have what was there
// before the target's bytes were written to it.
Task<void> MirrorProgress::settle() {
  if (!known() || ended()) co_return;
  std::vector<size_t> equal;
  const uint64_t bytes = open_->granularity();
  {
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < regions_.size(); ++i) {
      Region& region = regions_[i];
      if (!region.open || region.under_way != 0) continue;
      const uint64_t size = std::min(bytes, open_->length() - i * bytes);
      const DirtyBitmap::Run run = dirty_->run_at(i * bytes, size);
      if (run.dirty || run.length < size) continue;
      region.touched = false;
      equal.push_back(i);
    }
  }
  if (equal.empty()) co_return;
  co_await source_->flush();
  co_await target_->flush();
  const std::lock_guard lock(mutex_);
  for (const size_t number : equal) {
    Region& region = regions_[number];
    if (region.touched) continue;
    region.open = region.stored = false;
    open_->clean(number * bytes, 1);
  }
}

// --- backups ---

BackupProgress::BackupProgress(ProgressStorePtr store, std::string id, NodePtr target,
                               DirtyBitmapPtr left)
    : JobProgress(std::move(store), std::move(id), left->length(), left->granularity(), left.get()),
      target_(std::move(target)),
      left_(std::move(left)),
      unkept_(open()) {
  set_known();
}

bool BackupProgress::is_kept(uint64_t offset, uint64_t length) const {
  const DirtyBitmap::Run run = unkept_->run_at(offset, length);
  return !run.dirty && run.length >= std::min(length, unkept_->length() - offset);
}

// First out of what is stored as a whole, then into the store: what is stored as a whole in between
// has it.
Task<void> BackupProgress::keep_all(Runs runs) {
  co_await target_->flush();
  for (const auto& [offset, length] : runs) open_->clean(offset, length);
  Runs stored = runs;
  co_await store_->record(id_, false, std::move(stored));
  for (const auto& [offset, length] : runs) unkept_->clean(offset, length);
}

Task<void> BackupProgress::keep(uint64_t offset, uint64_t length) {
  if (forgotten() || is_kept(offset, length)) co_return;
  const uint64_t begin = align_down(offset, open_->granularity());
  const uint64_t end = std::min(align_up(offset + length, open_->granularity()), open_->length());
  {
    const std::lock_guard lock(mutex_);
    asked_.emplace_back(begin, end - begin);
  }
  const auto turn = co_await storing_.lock();
  if (is_kept(offset, length)) co_return;
  Runs runs;
  {
    const std::lock_guard lock(mutex_);
    runs.swap(asked_);
  }
  std::exception_ptr error;
  try {
    co_await keep_all(runs);
  } catch (...) {
    error = std::current_exception();
  }
  if (!error) co_return;
  // The others that asked try for themselves.
  const std::lock_guard lock(mutex_);
  asked_.insert(asked_.end(), runs.begin(), runs.end());
  std::rethrow_exception(error);
}

Task<void> BackupProgress::settle() {
  if (ended()) co_return;
  const auto turn = co_await storing_.lock();
  Runs copied;
  for (const auto& [offset, length] : dirty_runs(*unkept_)) {
    for (uint64_t at = offset; at < offset + length;) {
      const DirtyBitmap::Run run = left_->run_at(at, offset + length - at);
      if (run.length == 0) break;
      if (!run.dirty) copied.emplace_back(at, run.length);
      at += run.length;
    }
  }
  if (!copied.empty()) co_await keep_all(std::move(copied));
}

}  // namespace cairn::live
