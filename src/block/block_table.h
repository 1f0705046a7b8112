#pragma once

#include <atomic>
#include <bit>
#include <concepts>

#include "base/arith.h"
#include "block/format_node.h"
#include "block/table_cache.h"

// What formats share that keep a flat table of where the blocks of the disk are.
namespace cairn {

namespace detail {
template <std::unsigned_integral T>
std::atomic_ref<T> entry_at(const TableCache::Ref& ref, size_t index) {
  const MutableByteSpan bytes = ref.bytes();
  check_bounds(bytes.size(), index * sizeof(T), sizeof(T));
  return std::atomic_ref<T>(reinterpret_cast<T*>(bytes.data())[index]);
}
}  // namespace detail

// Entry INDEX of a cached part of a table, in the byte order of the disk. It is read and changed as
// a whole, while others read it.
template <std::unsigned_integral T, std::endian Order>
T load_entry(const TableCache::Ref& ref, size_t index) {
  return detail::swap_if(detail::entry_at<T>(ref, index).load(std::memory_order_acquire), Order);
}
// The caller marks the part as changed.
template <std::unsigned_integral T, std::endian Order>
void store_entry(const TableCache::Ref& ref, size_t index, T value) {
  detail::entry_at<T>(ref, index).store(detail::swap_if(value, Order), std::memory_order_release);
}

// The table of a format that is one row of COUNT entries in FILE, from OFFSET on.
template <std::unsigned_integral T, std::endian Order>
class FlatTable : public TableCache {
 public:
  // For OWNER, MAX_PARTS parts of PART_BYTES in memory; see TableCache.
  FlatTable(FormatNode* owner, Node& file, std::string name, uint64_t offset, uint64_t count,
            uint32_t part_bytes = 4096, size_t max_parts = 256)
      : TableCache(owner, file, std::move(name), part_bytes, max_parts, offset + count * sizeof(T)),
        offset_(offset) {}

  Task<T> entry(uint64_t index) {
    Ref part = try_get(part_of(index));
    if (!part) part = co_await get(part_of(index));
    co_return load_entry<T, Order>(part, index % per_part());
  }
  Task<void> set_entry(uint64_t index, T value) {
    const Ref part = co_await get(part_of(index));
    store_entry<T, Order>(part, index % per_part(), value);
    mark_dirty(part);
  }

 private:
  uint64_t per_part() const { return block_bytes() / sizeof(T); }
  uint64_t part_of(uint64_t index) const { return offset_ + index / per_part() * block_bytes(); }

  const uint64_t offset_;
};

// A write to where the bytes from OFFSET on are already, as far as THERE goes.
inline Grant grant_in_place(uint64_t offset, const Mapping& there) {
  Grant grant;
  grant.offset = offset;
  grant.length = there.length;
  grant.host = there.host;
  grant.host_offset = there.host_offset;
  grant.copy_begin = offset;
  grant.copy_end = offset + there.length;
  return grant;
}

// A write of LENGTH bytes at OFFSET into new space for the bytes [BEGIN, END) of the disk around
// them, which is at HOST_OFFSET of HOST and takes all of them.
inline Grant grant_new(uint64_t offset, uint64_t length, uint64_t begin, uint64_t end, Node* host,
                       uint64_t host_offset) {
  Grant grant;
  grant.offset = offset;
  grant.length = length;
  grant.host = host;
  grant.host_offset = host_offset + (offset - begin);
  grant.copy_begin = begin;
  grant.copy_end = end;
  grant.in_place = false;
  return grant;
}

}  // namespace cairn
