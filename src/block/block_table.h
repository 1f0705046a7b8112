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
// them, which lies at HOST_OFFSET of HOST and takes all of them.
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
