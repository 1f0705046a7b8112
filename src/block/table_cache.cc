#include "block/table_cache.h"

#include <algorithm>
#include <cstring>
#include <list>

#include "async/adaptive_mutex.h"
#include "base/arith.h"
#include "base/buffer.h"
#include "platform/system.h"

namespace cairn {
namespace {

// How much of the dirty blocks is copied and written at a time.
constexpr size_t kBatchBytes = 1 << 20;

// Under the mutex of the cache, which makes an atomic addition unnecessary.
void count_one(std::atomic<uint64_t>& counter) {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

// Copies a block that others may be changing. Entries are machine words that change as a whole, so
// the copy holds old or new entries, never halves; a change that we do not see marks the block
// dirty again and it is written once more.
#if defined(__SANITIZE_THREAD__)
__attribute__((no_sanitize_thread))
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
__attribute__((no_sanitize("thread")))
#endif
#endif
void copy_shared(std::byte* to, const std::byte* from, size_t bytes) {
  auto* words = reinterpret_cast<uint64_t*>(to);
  const auto* source = reinterpret_cast<const volatile uint64_t*>(from);
  for (size_t i = 0; i < bytes / sizeof(uint64_t); ++i) words[i] = source[i];
}

}  // namespace

struct TableCache::Block {
  uint64_t offset = 0;
  AlignedBuffer bytes;
  std::atomic<unsigned> refs{0};
  std::atomic<bool> ready{false};
  bool dirty = false;      // State::mutex
  bool writing = false;    // a copy is on its way to the file, which has older bytes; State::mutex
  bool recent = false;     // used since the hand of the clock came by; State::mutex
  uint32_t period = 0;     // in which it was used last, by the cleaner's count; State::mutex
  bool forgotten = false;  // not in the map any more; State::mutex
  Mutex loading;
  std::list<Block*>::iterator place;
};

// Caches that depend on each other write under one lock.
struct TableCache::Group {
  Mutex writing;
};

// The lock under which a cache writes: its group may become another one while we wait.
struct TableCache::Turn {
  std::shared_ptr<Group> group;
  Mutex::Guard guard;
};

struct TableCache::State {
  AdaptiveMutex mutex;
  std::unordered_map<uint64_t, std::unique_ptr<Block>> blocks;
  std::list<Block*> by_use;  // a clock: what was used since the hand came by gets another round
  // Freed while somebody still held them.
  std::vector<std::unique_ptr<Block>> orphans;
  size_t dirty = 0;
  size_t writing = 0;  // blocks whose copies are on their way
  std::chrono::steady_clock::duration clean_interval{0};
  std::chrono::steady_clock::time_point clean_at;
  uint32_t period = 0;
  std::shared_ptr<Group> group = std::make_shared<Group>();
  TableCache* after = nullptr;
  bool file_flush_first = false;
  bool unflushed = false;  // blocks were written since the file was last flushed for a dependency
  std::function<void()> on_first_block;
};

// --- references ---

TableCache::Ref::Ref(Ref&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}

TableCache::Ref& TableCache::Ref::operator=(Ref&& other) noexcept {
  std::swap(block_, other.block_);
  return *this;
}

TableCache::Ref::~Ref() {
  if (block_ != nullptr) block_->refs.fetch_sub(1, std::memory_order_release);
}

MutableByteSpan TableCache::Ref::bytes() const { return block_->bytes.span(); }

uint64_t TableCache::Ref::offset() const { return block_->offset; }

uint64_t TableCache::Ref::load_entry(size_t index) const {
  detail::check_bounds(block_->bytes.size(), index * 8, 8);
  auto* entry = reinterpret_cast<uint64_t*>(block_->bytes.data()) + index;
  return detail::swap_if(std::atomic_ref<uint64_t>(*entry).load(std::memory_order_acquire),
                         std::endian::big);
}

void TableCache::Ref::store_entry(size_t index, uint64_t value) const {
  detail::check_bounds(block_->bytes.size(), index * 8, 8);
  auto* entry = reinterpret_cast<uint64_t*>(block_->bytes.data()) + index;
  std::atomic_ref<uint64_t>(*entry).store(detail::swap_if(value, std::endian::big),
                                          std::memory_order_release);
}

// --- looking up ---

TableCache::TableCache(FormatNode* owner, Node& file, std::string name, uint32_t block_bytes,
                       size_t max_blocks, uint64_t end)
    : owner_(owner),
      file_(file),
      counts_(std::make_shared<CacheCounts>(std::move(name))),
      block_bytes_(block_bytes),
      max_blocks_(std::max<size_t>(max_blocks, 2)),
      end_(end),
      state_(std::make_unique<State>()) {
  if (owner_ != nullptr) owner_->add_cache(counts_);
}

TableCache::~TableCache() = default;

void TableCache::set_clean_interval(std::chrono::seconds interval) {
  std::lock_guard lock(state_->mutex);
  state_->clean_interval = interval;
  state_->clean_at = platform::coarse_now() + interval;
}

void TableCache::set_on_first_block(std::function<void()> call) {
  std::lock_guard lock(state_->mutex);
  state_->on_first_block = std::move(call);
}

void TableCache::clean() {
  std::lock_guard lock(state_->mutex);
  clean_if_due();
}

size_t TableCache::size() const {
  std::lock_guard lock(state_->mutex);
  return state_->blocks.size();
}

// Under State::mutex.
void TableCache::clean_if_due() {
  State& state = *state_;
  if (state.clean_interval.count() == 0) return;
  const auto now = platform::coarse_now();
  if (now < state.clean_at) return;
  // Two periods passed with nobody here: nothing was used in the last one.
  const bool long_ago = now - state.clean_at >= state.clean_interval;
  state.clean_at = now + state.clean_interval;
  for (auto at = state.by_use.begin(); at != state.by_use.end();) {
    Block* block = *at++;
    const bool used = block->period == state.period && !long_ago;
    if (used || block->dirty || block->writing ||
        block->refs.load(std::memory_order_acquire) != 0 ||
        !block->ready.load(std::memory_order_acquire))
      continue;
    state.by_use.erase(block->place);
    state.blocks.erase(block->offset);
  }
  ++state.period;
}

TableCache::Ref TableCache::try_get(uint64_t offset) {
  std::lock_guard lock(state_->mutex);
  clean_if_due();
  const auto found = state_->blocks.find(offset);
  if (found == state_->blocks.end()) return {};
  Block* block = found->second.get();
  if (!block->ready.load(std::memory_order_acquire)) return {};
  count_one(counts_->hits);
  return hold(block);
}

TableCache::Block* TableCache::place_for(uint64_t offset) {
  std::unique_ptr<Block>& slot = state_->blocks[offset];
  if (!slot) {
    slot = std::make_unique<Block>();
    slot->offset = offset;
    slot->place = state_->by_use.insert(state_->by_use.end(), slot.get());
  }
  return slot.get();
}

TableCache::Ref TableCache::hold(Block* block) {
  block->recent = true;
  block->period = state_->period;
  block->refs.fetch_add(1, std::memory_order_relaxed);
  return Ref(block);
}

Task<TableCache::Ref> TableCache::get(uint64_t offset) {
  Ref hit = try_get(offset);
  if (hit) co_return hit;
  Ref ref;
  bool fresh = false;
  {
    std::lock_guard lock(state_->mutex);
    fresh = !state_->blocks.contains(offset);
    count_one(counts_->misses);
    ref = hold(place_for(offset));
  }
  if (!ref.block_->ready.load(std::memory_order_acquire)) co_await load(ref.block_);
  if (fresh) co_await make_room();
  co_return ref;
}

Task<void> TableCache::load(Block* block) {
  Mutex::Guard guard = co_await block->loading.lock();
  if (block->ready.load(std::memory_order_acquire)) co_return;
  if (block->bytes.size() == 0) block->bytes = AlignedBuffer(block_bytes_);
  const uint64_t needed = end_ - std::min(end_, block->offset);
  if (owner_ != nullptr)
    co_await owner_->read_table(file_, block->offset, block->bytes.span(), needed);
  else
    co_await file_.read(block->offset, block->bytes.span());
  block->ready.store(true, std::memory_order_release);
}

Task<TableCache::Ref> TableCache::get_new(uint64_t offset) {
  Ref ref;
  {
    std::lock_guard lock(state_->mutex);
    Block* block = place_for(offset);
    ref = hold(block);
    if (block->bytes.size() == 0) block->bytes = AlignedBuffer(block_bytes_);
    std::memset(block->bytes.data(), 0, block_bytes_);
    block->ready.store(true, std::memory_order_release);
    if (!block->dirty) {
      block->dirty = true;
      ++state_->dirty;
    }
  }
  co_await make_room();
  co_return ref;
}

void TableCache::mark_dirty(const Ref& ref) {
  std::lock_guard lock(state_->mutex);
  if (ref.block_->dirty || ref.block_->forgotten) return;
  ref.block_->dirty = true;
  ++state_->dirty;
}

void TableCache::forget(uint64_t offset, uint64_t length) {
  std::lock_guard lock(state_->mutex);
  std::erase_if(state_->orphans, [](const auto& block) { return block->refs.load() == 0; });
  for (uint64_t at = align_down(offset, block_bytes_); at < offset + length; at += block_bytes_) {
    const auto found = state_->blocks.find(at);
    if (found == state_->blocks.end()) continue;
    Block* block = found->second.get();
    if (block->dirty) --state_->dirty;
    block->dirty = false;
    block->forgotten = true;
    state_->by_use.erase(block->place);
    if (block->refs.load(std::memory_order_acquire) != 0)
      state_->orphans.push_back(std::move(found->second));
    state_->blocks.erase(found);
  }
}

bool TableCache::dirty() const {
  std::lock_guard lock(state_->mutex);
  return state_->dirty != 0;
}

Task<void> TableCache::make_room() {
  std::function<void()> first;
  {
    std::lock_guard lock(state_->mutex);
    first.swap(state_->on_first_block);
  }
  if (first) first();
  while (true) {
    bool must_write = false;
    {
      std::lock_guard lock(state_->mutex);
      size_t chances = 2 * state_->by_use.size();
      for (auto at = state_->by_use.begin();
           state_->blocks.size() > max_blocks_ && at != state_->by_use.end() && chances != 0;
           --chances) {
        Block* block = *at++;
        // Read again, the block would be what the file has until the copy arrives.
        const bool held = block->writing || block->refs.load(std::memory_order_acquire) != 0;
        if (held || block->recent) {
          block->recent = false;
          state_->by_use.splice(state_->by_use.end(), state_->by_use, block->place);
          continue;
        }
        if (block->dirty) {
          must_write = true;
          break;
        }
        state_->by_use.erase(block->place);
        state_->blocks.erase(block->offset);
      }
    }
    if (!must_write) co_return;
    co_await write_back();
  }
}

// --- writing ---

Task<void> TableCache::write_after(TableCache& other) {
  {
    std::lock_guard lock(state_->mutex);
    if (state_->after == &other) co_return;
  }
  // What is being written is written under the lock of the group that it began in.
  Turn turn;
  co_await take_turn(turn);
  bool opposite = false;
  {
    std::scoped_lock lock(state_->mutex, other.state_->mutex);
    if (state_->after == &other) co_return;
    state_->group = other.state_->group;
    opposite = other.state_->after == this;
    if (!opposite) state_->after = &other;
  }
  // Caches of which one is written after the other are in one group.
  if (!opposite) co_return;
  co_await other.write_back_locked();
  co_await other.file_.flush();
  std::scoped_lock lock(state_->mutex, other.state_->mutex);
  other.state_->after = nullptr;
  other.state_->unflushed = false;
  state_->after = &other;
}

void TableCache::write_after_file_flush() {
  std::lock_guard lock(state_->mutex);
  state_->file_flush_first = true;
}

Task<void> TableCache::flush() {
  co_await write_back();
  co_await file_.flush();
}

Task<void> TableCache::take_turn(Turn& turn) {
  while (true) {
    std::shared_ptr<Group> group;
    {
      std::lock_guard lock(state_->mutex);
      group = state_->group;
    }
    Mutex::Guard guard = co_await group->writing.lock();
    std::lock_guard lock(state_->mutex);
    if (state_->group != group) continue;
    turn.group = std::move(group);
    turn.guard = std::move(guard);
    co_return;
  }
}

Task<void> TableCache::write_back() {
  {
    // What somebody else writes just now is not in the file yet either.
    std::lock_guard lock(state_->mutex);
    if (state_->dirty == 0 && state_->writing == 0) co_return;
  }
  Turn turn;
  co_await take_turn(turn);
  co_await write_back_locked();
}

Task<void> TableCache::write_back_locked() {
  AlignedBuffer batch;
  std::vector<uint64_t> offsets;
  while (true) {
    offsets.clear();
    {
      // Copy first, then see to what must be on disk before: whatever an entry in the copies
      // points to was marked dirty in the other cache before the entry was made.
      std::lock_guard lock(state_->mutex);
      if (state_->dirty == 0) co_return;
      std::vector<Block*> dirty;
      dirty.reserve(state_->dirty);
      for (Block* block : state_->by_use)
        if (block->dirty) dirty.push_back(block);
      std::sort(dirty.begin(), dirty.end(),
                [](const Block* a, const Block* b) { return a->offset < b->offset; });
      const size_t most = std::max<size_t>(kBatchBytes / block_bytes_, 1);
      if (dirty.size() > most) dirty.resize(most);
      if (batch.size() < dirty.size() * block_bytes_)
        batch = AlignedBuffer(dirty.size() * block_bytes_);
      for (Block* block : dirty) {
        copy_shared(batch.data() + offsets.size() * block_bytes_, block->bytes.data(),
                    block_bytes_);
        offsets.push_back(block->offset);
        block->dirty = false;
        block->writing = true;
        --state_->dirty;
      }
      state_->writing = offsets.size();
    }
    std::exception_ptr error;
    size_t written = 0;
    try {
      // For each batch: later ones have entries that did not exist before.
      if (before_write_) co_await before_write_();
      co_await honour_dependencies_locked();
      while (written < offsets.size()) {
        size_t run = 1;
        while (written + run < offsets.size() &&
               offsets[written + run] == offsets[written] + run * block_bytes_)
          ++run;
        co_await file_.write(offsets[written], std::as_const(batch).span().subspan(
                                                   written * block_bytes_, run * block_bytes_));
        written += run;
      }
    } catch (...) {
      error = std::current_exception();
    }
    std::lock_guard lock(state_->mutex);
    state_->unflushed = true;
    state_->writing = 0;
    for (size_t i = 0; i < offsets.size(); ++i) {
      const auto found = state_->blocks.find(offsets[i]);
      if (found == state_->blocks.end()) continue;
      found->second->writing = false;
      // What did not reach the disk is still to be written.
      if (i < written || found->second->dirty) continue;
      found->second->dirty = true;
      ++state_->dirty;
    }
    if (error) std::rethrow_exception(error);
  }
}

Task<void> TableCache::honour_dependencies_locked() {
  TableCache* after = nullptr;
  bool flush = false;
  {
    std::lock_guard lock(state_->mutex);
    after = state_->after;
    flush = std::exchange(state_->file_flush_first, false);
  }
  std::exception_ptr error;
  try {
    if (after != nullptr) {
      co_await after->write_back_locked();
      std::lock_guard lock(after->state_->mutex);
      flush = flush || after->state_->unflushed;
    }
    if (flush) co_await file_.flush();
  } catch (...) {
    error = std::current_exception();
  }
  if (error) {
    std::lock_guard lock(state_->mutex);
    state_->file_flush_first = true;
    std::rethrow_exception(error);
  }
  if (after != nullptr && flush) {
    std::lock_guard lock(after->state_->mutex);
    after->state_->unflushed = false;
  }
}

}  // namespace cairn
