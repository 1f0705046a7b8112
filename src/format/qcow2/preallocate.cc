#include <algorithm>

#include "base/arith.h"
#include "block/work_report.h"
#include "format/qcow2/node.h"

namespace cairn {

using namespace qcow2;

// Space of its own for everything that is added: one run of clusters after all others, before
// it the refcount blocks and the new refcount table that count it. The layout is QEMU's.

// The first cluster after the file and everything that is counted.
Task<uint64_t> Qcow2Node::end_of_clusters() {
  const uint64_t per_block = header_.refcounts_per_block();
  uint64_t end = div_ceil(file_->length(), cluster());
  for (size_t i = refcount_table_.size(); i-- > 0 && (i + 1) * per_block > end;) {
    if (refcount_table_[i] == 0) continue;
    for (uint64_t c = per_block; c-- > 0 && i * per_block + c >= end;) {
      const uint64_t count = co_await refcount(i * per_block + c);
      if (count != 0) end = i * per_block + c + 1;
    }
  }
  co_return end;
}

// COUNT clusters at the end, counted; gives the first.
Task<uint64_t> Qcow2Node::allocate_at_end(uint64_t count) {
  Mutex::Guard guard = co_await alloc_mutex_.lock();
  const uint64_t per_block = header_.refcounts_per_block();
  const uint64_t area = co_await end_of_clusters();
  const auto entry = [this](uint64_t index) {
    return index < refcount_table_.size() ? refcount_table_[index] : 0;
  };
  // Blocks and table count themselves as well.
  std::vector<uint64_t> missing;
  uint64_t table_clusters = header_.refcount_table_clusters;
  uint64_t end = 0;
  while (true) {
    end = area + missing.size() + table_clusters + count;
    if (end > kMaxHostOffset / cluster()) throw Error::system(EFBIG);
    const uint64_t last = (end - 1) / per_block;
    const uint64_t wanted =
        std::max<uint64_t>(header_.refcount_table_clusters, div_ceil((last + 1) * 8, cluster()));
    if (wanted * cluster() > kMaxRefcountTableBytes)
      throw Error::system(EFBIG, "Failed to resize refcount structures");
    std::vector<uint64_t> now;
    for (uint64_t i = area / per_block; i <= last; ++i)
      if (entry(i) == 0) now.push_back(i);
    if (now.size() == missing.size() && wanted == table_clusters) break;
    missing = std::move(now);
    table_clusters = wanted;
  }
  check_overlap(area * cluster(), (end - area) * cluster());
  std::vector<uint64_t> table = refcount_table_;
  table.resize(table_clusters * cluster() / 8);
  std::vector<std::byte> block(cluster());
  for (size_t i = 0; i < missing.size(); ++i) {
    std::fill(block.begin(), block.end(), std::byte{0});
    const uint64_t first = missing[i] * per_block;
    for (uint64_t c = std::max(first, area); c < std::min(first + per_block, end); ++c)
      set_refcount(block, c - first, header_.refcount_order, 1);
    refcounts_->forget((area + i) * cluster(), cluster());
    co_await file_->write((area + i) * cluster(), block);
    table[missing[i]] = (area + i) * cluster();
  }
  for (uint64_t i = area / per_block; i <= (end - 1) / per_block; ++i) {
    if (entry(i) == 0) continue;
    const uint64_t from = std::max(area, i * per_block);
    co_await change_refcount(from, std::min(end, (i + 1) * per_block) - from, +1);
  }
  const uint64_t place = area + missing.size();
  std::vector<std::byte> bytes(table_clusters * cluster());
  for (size_t i = 0; i < table.size(); ++i) store_be<uint64_t>(bytes, i * 8, table[i]);
  co_await file_->write(place * cluster(), bytes);
  co_await refcounts_->write_back();
  co_await file_->flush();
  std::byte field[12];
  store_be<uint64_t>(field, 0, place * cluster());
  store_be<uint32_t>(field, 8, static_cast<uint32_t>(table_clusters));
  co_await write_header_field(48, field);
  const uint64_t old_offset = header_.refcount_table_offset;
  const uint64_t old_clusters = header_.refcount_table_clusters;
  header_.refcount_table_offset = place * cluster();
  header_.refcount_table_clusters = static_cast<uint32_t>(table_clusters);
  refcount_table_ = std::move(table);
  {
    std::lock_guard lock(tables_mutex_);
    for (size_t i = 0; i < missing.size(); ++i) block_clusters_.insert(area + i);
  }
  virgin_ = std::max(virgin_, end * cluster());
  co_await change_refcount(old_offset / cluster(), old_clusters, -1);
  co_return place + table_clusters;
}

// Maps the guest's [FROM, TO) to one run; FROM's cluster moves there with what it showed before.
Task<void> Qcow2Node::preallocate_run(uint64_t from, uint64_t to, Preallocation mode) {
  const uint64_t start = align_down(from, cluster());
  const uint64_t count = div_ceil(to - start, cluster());
  const uint64_t first = co_await allocate_at_end(count);
  const uint64_t host = first * cluster();
  std::exception_ptr error;
  try {
    co_await file_->resize(
        {.length = host + count * cluster(), .preallocation = mode, .exact = false});
    if (from != start) {
      std::vector<std::byte> head(from - start);
      co_await read_guest(start, head);
      co_await write_payload(*file_, host, start, head);
    }
  } catch (Error& caught) {
    caught.context("Failed to resize underlying file");
    error = std::make_exception_ptr(caught);
  }
  if (error) {
    Mutex::Guard guard = co_await alloc_mutex_.lock();
    co_await change_refcount(host / cluster(), count, -1);
    std::rethrow_exception(error);
  }
  const uint64_t per_slice = slice_bytes_ / header_.l2_entry_bytes();
  for (uint64_t done = 0; done < count;) {
    const uint64_t at = start + done * cluster();
    Grant place;
    place.offset = at;
    place.token[0] = host + done * cluster();
    place.token[1] = std::min<uint64_t>(count - done, per_slice - slice_index(at));
    place.length = place.token[1] * cluster();
    place.in_place = false;
    // Subclusters stay unallocated: only the space is there, but for what was copied.
    place.copy_begin = at;
    place.copy_end = at + place.length;
    if (header_.extended_l2())
      place.copy_end = done == 0 ? align_up(from, cluster() / subclusters()) : at;
    co_await publish(place);
    done += place.token[1];
    report_work(context(), "allocate", done * cluster(), count * cluster());
  }
}

}  // namespace cairn
