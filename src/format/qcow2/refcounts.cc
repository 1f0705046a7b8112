#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "base/arith.h"
#include "block/context.h"
#include "block/debug.h"
#include "format/qcow2/node.h"

namespace cairn {

using namespace qcow2;

namespace {
// This much freed space, or so many pieces of it, may wait for the next flush.
constexpr size_t kMaxWaitingFrees = 4096;
constexpr uint64_t kMaxWaitingBytes = 64 << 20;
// So many flushes in a row may make discarded clusters free for what is written next; one more
// every 100 ms.
constexpr int64_t kMostReuses = 32;
constexpr std::chrono::milliseconds kReuseInterval{100};
// Pieces of what a snapshot gives up of which the file learns; it is a hint.
constexpr size_t kMaxDiscards = 1 << 16;

// Adds DELTA to COUNT counters of 16 bits; false, and nothing done, where one would overflow or
// become zero: those need a closer look.
bool shift_counters(MutableByteSpan block, uint64_t first, uint64_t count, int delta) {
  uint16_t least = UINT16_MAX;
  uint16_t most = 0;
  for (uint64_t i = first; i < first + count; ++i) {
    const auto value = load_be<uint16_t>(block, i * 2);
    least = std::min(least, value);
    most = std::max(most, value);
  }
  if (delta > 0 ? most == UINT16_MAX : least < 2) return false;
  for (uint64_t i = first; i < first + count; ++i) {
    const auto value = load_be<uint16_t>(block, i * 2);
    store_be<uint16_t>(block, i * 2, static_cast<uint16_t>(value + delta));
  }
  return true;
}
}  // namespace

// Where the block with INDEX is; 0: there is none.
uint64_t Qcow2Node::refcount_block(uint64_t index) {
  if (index >= refcount_table_.size()) return 0;
  const uint64_t place = refcount_table_[index];
  if (is_aligned(place, cluster())) return place;
  char text[96];
  std::snprintf(text, sizeof text, "Refblock offset %#llx unaligned (reftable index: %#llx)",
                static_cast<unsigned long long>(place), static_cast<unsigned long long>(index));
  corrupt(text);
}

Task<uint64_t> Qcow2Node::refcount(uint64_t index) {
  const uint64_t per_block = header_.refcounts_per_block();
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kRefblockLoad);
  const uint64_t block = refcount_block(index / per_block);
  if (block == 0) co_return 0;
  const TableCache::Ref ref = co_await refcounts_->get(block);
  co_return get_refcount(ref.bytes(), index % per_block, header_.refcount_order);
}

// What people see in addition to the text that scripts know.
Error Qcow2Node::explained(Error error, const std::string& why) const {
  if (context().profile.explanations) error.hint(why);
  return error;
}

// What a change of the counter of cluster INDEX, for which there is none, fails with.
Error Qcow2Node::uncounted(uint64_t index, int delta) const {
  const uint64_t block = index / header_.refcounts_per_block();
  const Error error = delta < 0 ? Error(ErrorKind::kCorrupt, "Input/output error")
                      : block >= kMaxRefcountTableBytes / 8 ? Error::system(EFBIG)
                                                            : Error::system(EAGAIN);
  return explained(error, fmt::format("Cluster {} has no refcount.", index));
}

Task<void> Qcow2Node::change_refcount(uint64_t index, uint64_t count, int delta) {
  const uint64_t per_block = header_.refcounts_per_block();
  const unsigned order = header_.refcount_order;
  const uint64_t most = order == 6 ? UINT64_MAX : (uint64_t{1} << header_.refcount_bits()) - 1;
  for (uint64_t at = index; at < index + count;) {
    const uint64_t block = at / per_block;
    const uint64_t end = std::min(index + count, (block + 1) * per_block);
    const uint64_t place = refcount_block(block);
    if (place == 0) throw uncounted(at, delta);
    if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kRefblockUpdate);
    check_overlap(place, cluster(), kOverlapAll & ~kOverlapRefcountBlock);
    TableCache::Ref ref = co_await refcounts_->get(place);
    if (order == 4 && end - at > 1 &&
        shift_counters(ref.bytes(), at % per_block, end - at, delta)) {
      at = end;
    }
    for (; at < end; ++at) {
      const uint64_t old = get_refcount(ref.bytes(), at % per_block, order);
      if (delta > 0 ? old == most : old == 0)
        throw explained(Error::system(EINVAL),
                        fmt::format("The refcount of cluster {}{}", at,
                                    delta > 0 ? " would overflow." : " is zero already."));
      const uint64_t now = delta > 0 ? old + 1 : old - 1;
      set_refcount(ref.bytes(), at % per_block, order, now);
      if (now != 0) continue;
      free_cursor_ = std::min(free_cursor_, at);
      if (became_free_ == nullptr || became_free_->size() >= kMaxDiscards) continue;
      if (!became_free_->empty() && became_free_->back().first + became_free_->back().count == at)
        ++became_free_->back().count;
      else
        became_free_->push_back({at, 1});
    }
    refcounts_->mark_dirty(ref);
  }
}

// The first run of free clusters from the cursor on that has LEAST of them, and no more than MOST.
Task<Qcow2Node::Run> Qcow2Node::find_free(uint64_t least, uint64_t most) {
  const uint64_t per_block = header_.refcounts_per_block();
  Run run{.first = free_cursor_, .count = 0};
  bool lowest = true;
  while (run.count < most) {
    const uint64_t at = run.first + run.count;
    const uint64_t block = at / per_block;
    const uint64_t end = std::min((block + 1) * per_block, run.first + most);
    const uint64_t place = refcount_block(block);
    if (place == 0) {
      run.count = end - run.first;
      continue;
    }
    const TableCache::Ref ref = co_await refcounts_->get(place);
    for (uint64_t c = at; c < (block + 1) * per_block && run.count < most; ++c) {
      if (get_refcount(ref.bytes(), c % per_block, header_.refcount_order) == 0) {
        ++run.count;
        continue;
      }
      if (run.count >= least) co_return run;
      if (lowest && run.count == 0) free_cursor_ = c + 1;
      lowest = lowest && run.count == 0;
      run = {.first = c + 1, .count = 0};
    }
  }
  co_return run;
}

Task<Qcow2Node::Run> Qcow2Node::allocate_locked(uint64_t least, uint64_t most, const char* fault) {
  const uint64_t per_block = header_.refcounts_per_block();
  if (least >= per_block) {
    // New blocks would be in the way of a run that is longer than what one of them counts.
    const uint64_t first = co_await make_area(least);
    co_return Run{.first = first, .count = least};
  }
  while (true) {
    const Run run = co_await find_free(least, most);
    if (run.first == 0) corrupt(fault);
    const auto end = checked_mul(run.first + run.count, cluster());
    if (!end || *end > kMaxHostOffset) throw Error::system(EFBIG);
    bool restart = false;
    for (uint64_t block = run.first / per_block; block <= (run.first + run.count - 1) / per_block;
         ++block) {
      // A new block takes space itself, after what was found where it can: search again.
      const bool made = co_await make_refcount_block(block, run.first + run.count);
      restart = restart || made;
    }
    if (restart) continue;
    check_overlap(run.first * cluster(), run.count * cluster());
    co_await change_refcount(run.first, run.count, +1);
    // Smaller gaps before the run wait until something near them is freed, or the image is opened.
    free_cursor_ = run.first + run.count;
    co_return run;
  }
}

// Makes the block that counts clusters from BLOCK_INDEX * refcounts per block on; false when it is
// there. No counter of its range is set, so it can be in its own range and count itself.
Task<bool> Qcow2Node::make_refcount_block(uint64_t block_index, uint64_t wanted_place) {
  if (block_index >= refcount_table_.size()) co_await grow_refcount_table(block_index);
  if (refcount_table_[block_index] != 0) co_return false;
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kRefblockAlloc);
  const uint64_t per_block = header_.refcounts_per_block();
  const uint64_t place =
      std::clamp(wanted_place, block_index * per_block, (block_index + 1) * per_block - 1);
  const uint64_t offset = place * cluster();
  if (offset == 0) corrupt("Preventing invalid allocation of refcount block at offset 0");
  check_overlap(offset, cluster());
  {
    TableCache::Ref ref = co_await refcounts_->get_new(offset);
    set_refcount(ref.bytes(), place % per_block, header_.refcount_order, 1);
    refcounts_->mark_dirty(ref);
  }
  std::exception_ptr error;
  try {
    if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kRefblockAllocWrite);
    co_await refcounts_->write_back();
    co_await file_->flush();
  } catch (...) {
    error = std::current_exception();
  }
  if (error) {
    // Storage that cannot grow has no room for it, now or when the others are written.
    refcounts_->forget(offset, cluster());
    std::rethrow_exception(error);
  }
  std::byte entry[8];
  store_be<uint64_t>(entry, 0, offset);
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kRefblockAllocHookup);
  const uint64_t in_table = header_.refcount_table_offset + block_index * 8;
  check_overlap(in_table, 8, kOverlapAll & ~kOverlapRefcountTable);
  co_await file_->write(in_table, entry);
  co_await file_->flush();
  refcount_table_[block_index] = offset;
  virgin_ = std::max(virgin_, offset + cluster());
  std::lock_guard lock(tables_mutex_);
  block_clusters_.insert(place);
  co_return true;
}

// COUNT clusters after everything that is counted so far, with the blocks that count them in
// front.
Task<uint64_t> Qcow2Node::make_area(uint64_t count) {
  const uint64_t per_block = header_.refcounts_per_block();
  uint64_t area_block = refcount_table_.size();
  while (area_block > 0 && refcount_table_[area_block - 1] == 0) --area_block;
  uint64_t blocks = 1;
  while (blocks * per_block < blocks + count) blocks = div_ceil(blocks + count, per_block);
  if (area_block + blocks > refcount_table_.size())
    co_await grow_refcount_table(area_block + blocks - 1);
  const uint64_t area = area_block * per_block;
  const auto end = checked_mul(area + blocks + count, cluster());
  if (!end || *end > kMaxHostOffset) throw Error::system(EFBIG);
  check_overlap(area * cluster(), (blocks + count) * cluster());
  co_await write_counted_blocks(area, blocks, blocks + count);
  std::vector<std::byte> entries(blocks * 8);
  for (uint64_t i = 0; i < blocks; ++i) store_be<uint64_t>(entries, i * 8, (area + i) * cluster());
  co_await file_->write(header_.refcount_table_offset + area_block * 8, entries);
  co_await file_->flush();
  std::lock_guard lock(tables_mutex_);
  for (uint64_t i = 0; i < blocks; ++i) {
    refcount_table_[area_block + i] = (area + i) * cluster();
    block_clusters_.insert(area + i);
  }
  virgin_ = std::max(virgin_, (area + blocks) * cluster());
  co_return area + blocks;
}

// BLOCKS refcount blocks from cluster AREA on, which count the first USED clusters of the area.
Task<void> Qcow2Node::write_counted_blocks(uint64_t area, uint64_t blocks, uint64_t used) {
  const uint64_t per_block = header_.refcounts_per_block();
  std::vector<std::byte> block(cluster());
  for (uint64_t i = 0; i < blocks; ++i) {
    std::fill(block.begin(), block.end(), std::byte{0});
    for (uint64_t c = 0; c < per_block && i * per_block + c < used; ++c)
      set_refcount(block, c, header_.refcount_order, 1);
    refcounts_->forget((area + i) * cluster(), cluster());
    co_await file_->write((area + i) * cluster(), block);
  }
  co_await file_->flush();
}

// A larger table, in an area that also holds the blocks that count the area.
Task<void> Qcow2Node::grow_refcount_table(uint64_t block_index) {
  const uint64_t per_block = header_.refcounts_per_block();
  const uint64_t area_block = std::max<uint64_t>(refcount_table_.size(), block_index + 1);
  const uint64_t area = area_block * per_block;  // first cluster
  uint64_t blocks = 1;
  uint64_t table = 1;
  while (true) {
    const uint64_t used = area_block + blocks;
    const uint64_t new_table = div_ceil((used + used / 2) * 8, cluster());
    // As if the area held the old blocks as well: QEMU's layout, and room to grow.
    const uint64_t new_blocks = div_ceil(used + new_table, per_block);
    if (new_table == table && new_blocks == blocks) break;
    table = std::max(table, new_table);
    blocks = std::max(blocks, new_blocks);
  }
  if (table * cluster() > kMaxRefcountTableBytes) throw Error::system(EFBIG);
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kReftableGrow);
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kRefblockAllocWriteBlocks);
  std::vector<uint64_t> entries = refcount_table_;
  entries.resize(table * cluster() / 8);
  co_await write_counted_blocks(area, blocks, blocks + table);
  for (uint64_t i = 0; i < blocks; ++i) entries[area_block + i] = (area + i) * cluster();
  std::vector<std::byte> bytes(table * cluster());
  for (size_t i = 0; i < entries.size(); ++i) store_be<uint64_t>(bytes, i * 8, entries[i]);
  const uint64_t offset = (area + blocks) * cluster();
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kRefblockAllocWriteTable);
  co_await file_->write(offset, bytes);
  co_await file_->flush();
  std::byte field[12];
  store_be<uint64_t>(field, 0, offset);
  store_be<uint32_t>(field, 8, static_cast<uint32_t>(table));
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kRefblockAllocSwitchTable);
  co_await write_header_field(48, field);
  const uint64_t old_offset = header_.refcount_table_offset;
  const uint64_t old_clusters = header_.refcount_table_clusters;
  header_.refcount_table_offset = offset;
  header_.refcount_table_clusters = static_cast<uint32_t>(table);
  refcount_table_ = std::move(entries);
  virgin_ = std::max(virgin_, (area + blocks + table) * cluster());
  {
    std::lock_guard lock(tables_mutex_);
    for (uint64_t i = 0; i < blocks; ++i) block_clusters_.insert(area + i);
  }
  co_await free_now(old_offset / cluster(), old_clusters, Freed::kTables);
}

// --- for the rest of the driver ---

Task<uint64_t> Qcow2Node::allocate(uint64_t count, bool* virgin, const char* fault) {
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kClusterAlloc);
  co_await apply_requested_frees();
  Mutex::Guard guard = co_await alloc_mutex_.lock();
  const Run run = co_await allocate_locked(count, count, fault);
  const uint64_t offset = run.first * cluster();
  if (virgin != nullptr) *virgin = offset >= virgin_;
  virgin_ = std::max(virgin_, offset + count * cluster());
  co_return offset;
}

Task<Qcow2Node::Run> Qcow2Node::allocate_some(uint64_t most, bool* virgin, uint64_t near) {
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kClusterAlloc);
  co_await apply_requested_frees();
  Mutex::Guard guard = co_await alloc_mutex_.lock();
  // In one piece, so that the disk can be read in large requests; what needs blocks of its own
  // takes what there is.
  uint64_t least = most < header_.refcounts_per_block() ? most : 1;
  if (near != 0 && near >= free_cursor_) {
    const uint64_t used = co_await refcount(near);
    if (used == 0) {
      free_cursor_ = near;
      least = 1;
    }
  }
  const Run run = co_await allocate_locked(least, most, kClusterAtZero);
  *virgin = run.first * cluster() >= virgin_;
  virgin_ = std::max(virgin_, (run.first + run.count) * cluster());
  co_return run;
}

bool Qcow2Node::passes(Freed why) const {
  switch (why) {
    case Freed::kReplaced:
      return false;
    case Freed::kRequest:
      return pass_discard_request_;
    case Freed::kSnapshot:
      return pass_discard_snapshot_;
    case Freed::kTables:
      return pass_discard_other_;
    case Freed::kForGood:
      return true;
  }
  return false;
}

void Qcow2Node::free_later(uint64_t offset, uint64_t length, Freed why) {
  const bool discard = passes(why);
  std::lock_guard lock(frees_mutex_);
  waiting_bytes_ += length;
  frees_requested_ = frees_requested_ || why == Freed::kRequest;
  if (!frees_.empty() && frees_.back().discard == discard &&
      frees_.back().offset + frees_.back().length == offset)
    frees_.back().length += length;
  else
    frees_.push_back({offset, length, discard});
}

// Discards those clusters of the file that nobody uses. Under the allocator's lock: none of them
// can have been given to somebody meanwhile.
Task<void> Qcow2Node::discard_unused(uint64_t first, uint64_t count) {
  Run run{.first = first, .count = 0};
  for (uint64_t at = first; at < first + count; ++at) {
    const uint64_t left = co_await refcount(at);
    if (left == 0) {
      ++run.count;
      continue;
    }
    if (run.count != 0) co_await file_->discard(run.first * cluster(), run.count * cluster());
    run = {.first = at + 1, .count = 0};
  }
  if (run.count != 0) co_await file_->discard(run.first * cluster(), run.count * cluster());
}

Task<void> Qcow2Node::free_now(uint64_t first, uint64_t count, Freed why) {
  co_await change_refcount(first, count, -1);
  if (passes(why)) co_await discard_unused(first, count);
}

// Lowers the counters of what was unmapped, once the tables that gave it up are on disk.
Task<void> Qcow2Node::apply_frees() {
  Mutex::Guard flushing = co_await flush_mutex_.lock();
  std::vector<HostRange> ranges;
  {
    std::lock_guard lock(frees_mutex_);
    ranges.swap(frees_);
    waiting_bytes_ = 0;
    frees_requested_ = false;
  }
  if (ranges.empty()) co_return;
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kClusterFree);
  co_await l2_->write_back();
  co_await file_->flush();
  Mutex::Guard guard = co_await alloc_mutex_.lock();
  for (const HostRange& range : ranges) {
    const uint64_t first = range.offset / cluster();
    const uint64_t last = div_ceil(range.offset + range.length, cluster());
    co_await change_refcount(first, last - first, -1);
    if (compressed_cursor_ != 0 && compressed_cursor_ / cluster() >= first &&
        compressed_cursor_ / cluster() < last)
      compressed_cursor_ = 0;
    if (range.discard) co_await discard_unused(first, last - first);
  }
}

// What a guest has discarded is used again before the file grows. That costs a flush, so not for
// every request of a guest that discards and writes in turns.
Task<void> Qcow2Node::apply_requested_frees() {
  bool due = false;
  {
    std::lock_guard lock(frees_mutex_);
    if (frees_requested_) {
      const auto now = std::chrono::steady_clock::now();
      const int64_t more = (now - reused_at_) / kReuseInterval;
      reuses_left_ = std::min(kMostReuses, reuses_left_ + more);
      reused_at_ += more * kReuseInterval;
      due = reuses_left_ > 0;
      if (due) --reuses_left_;
    }
  }
  if (due) co_await apply_frees();
}

Task<void> Qcow2Node::apply_frees_if_many() {
  bool many = false;
  {
    std::lock_guard lock(frees_mutex_);
    many = frees_.size() > kMaxWaitingFrees || waiting_bytes_ > kMaxWaitingBytes;
  }
  if (many) co_await apply_frees();
}

}  // namespace cairn
