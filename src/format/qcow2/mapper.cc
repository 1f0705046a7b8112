#include <algorithm>
#include <cstdio>

#include "base/arith.h"
#include "block/context.h"
#include "block/debug.h"
#include "format/qcow2/node.h"
#include "platform/types.h"

namespace cairn {

using namespace qcow2;

uint64_t Qcow2Node::l1_entry(uint64_t index) const {
  return index < l1_count_ ? l1_[index].load(std::memory_order_acquire) : 0;
}

void Qcow2Node::set_l1_entry(uint64_t index, uint64_t entry) {
  l1_[index].store(entry, std::memory_order_release);
}

size_t Qcow2Node::slice_index(uint64_t offset) const {
  return offset / cluster() % (slice_bytes_ / header_.l2_entry_bytes());
}

TableCache::Ref Qcow2Node::try_slice(uint64_t table, uint64_t offset) {
  const uint64_t in_table = offset / cluster() % header_.l2_entries() * header_.l2_entry_bytes();
  return l2_->try_get(table + align_down(in_table, slice_bytes_));
}

Task<Qcow2Node::Slice> Qcow2Node::slice(uint64_t table, uint64_t offset) {
  if (!is_aligned(table, cluster())) {
    char text[96];
    std::snprintf(text, sizeof text, "L2 table offset %#llx unaligned (L1 index: %#llx)",
                  static_cast<unsigned long long>(table),
                  static_cast<unsigned long long>(offset / header_.l2_range()));
    corrupt(text);
  }
  const uint64_t in_table = offset / cluster() % header_.l2_entries() * header_.l2_entry_bytes();
  if (DebugPort* port = debug_below()) co_await port->event(DebugEvent::kL2Load);
  Slice result;
  result.ref = co_await l2_->get(table + align_down(in_table, slice_bytes_));
  result.first = align_down(offset, slice_bytes_ / header_.l2_entry_bytes() * cluster());
  co_return result;
}

Qcow2Node::Entry Qcow2Node::load_entry(const TableCache::Ref& ref, size_t index) const {
  if (!header_.extended_l2()) return {ref.load_entry(index), 0};
  return {ref.load_entry(index * 2), ref.load_entry(index * 2 + 1)};
}

void Qcow2Node::store_entry(const TableCache::Ref& ref, size_t index, Entry entry) {
  if (!header_.extended_l2()) {
    ref.store_entry(index, entry.word);
  } else {
    ref.store_entry(index * 2, entry.word);
    ref.store_entry(index * 2 + 1, entry.bitmap);
  }
}

Qcow2Node::Type Qcow2Node::classify(Entry entry, unsigned subcluster) const {
  if (entry.word & kCompressed) return Type::kCompressed;
  const bool host = has_host(entry.word);
  if (header_.extended_l2()) {
    if (entry.bitmap >> (32 + subcluster) & 1) return host ? Type::kZeroAllocated : Type::kZero;
    return entry.bitmap >> subcluster & 1 ? Type::kNormal : Type::kUnallocated;
  }
  if (entry.word & kZeroFlag) return host ? Type::kZeroAllocated : Type::kZero;
  return host ? Type::kNormal : Type::kUnallocated;
}

std::string Qcow2Node::unaligned_cluster(Entry entry, uint64_t offset, Use use) const {
  const auto host = static_cast<unsigned long long>(entry.word & kOffsetMask);
  char text[160];
  if (use == Use::kWrite)
    std::snprintf(text, sizeof text, "%s cluster offset %#llx unaligned (guest offset: %#llx)",
                  entry.word & kZeroFlag && !header_.extended_l2() ? "Preallocated zero" : "Data",
                  host, static_cast<unsigned long long>(offset));
  else
    std::snprintf(
        text, sizeof text,
        "Cluster allocation offset %#llx unaligned (L2 offset: %#llx, L2 index: %#llx)", host,
        static_cast<unsigned long long>(l1_entry(offset / header_.l2_range()) & kOffsetMask),
        static_cast<unsigned long long>(offset / cluster() % header_.l2_entries()));
  return text;
}

// What an entry of a sound image never says.
void Qcow2Node::check_entry(Entry entry, uint64_t offset, Use use) {
  const uint64_t host = entry.word & kOffsetMask;
  const char* problem = nullptr;
  // Scripts know these words: those of a read have a space more.
  const char* invalid =
      use == Use::kRead ? "Invalid cluster entry found " : "Invalid cluster entry found";
  char text[160];
  if (entry.word & kCompressed) {
    if (!external_) return;
    problem = "Compressed cluster entry found in image with external data file";
  } else if (header_.version == 2 && (entry.word & kZeroFlag))
    problem = "Zero cluster entry found in pre-v3 image";
  else if (header_.extended_l2() && (entry.bitmap & entry.bitmap >> 32 & 0xffffffff) != 0)
    problem = invalid;
  else if (header_.extended_l2() && !has_host(entry.word) && (entry.bitmap & 0xffffffff) != 0)
    problem = invalid;
  else if (!is_aligned(host, cluster()))
    corrupt(unaligned_cluster(entry, offset, use));
  if (problem == nullptr) {
    if (!external_ || !has_host(entry.word) || host == align_down(offset, cluster())) return;
    std::snprintf(text, sizeof text,
                  "External data file host cluster offset %#llx does not match guest cluster "
                  "offset: %#llx, L2 index: %#llx)",
                  static_cast<unsigned long long>(host),
                  static_cast<unsigned long long>(align_down(offset, cluster())),
                  static_cast<unsigned long long>(offset / cluster() % header_.l2_entries()));
    corrupt(text);
  }
  std::snprintf(
      text, sizeof text, "%s (L2 offset: %#llx, L2 index: %#llx)", problem,
      static_cast<unsigned long long>(l1_entry(offset / header_.l2_range()) & kOffsetMask),
      static_cast<unsigned long long>(offset / cluster() % header_.l2_entries()));
  corrupt(text);
}

Task<Mapping> Qcow2Node::map(uint64_t offset, uint64_t length) {
  if (unusable_.load(std::memory_order_relaxed)) throw Error::system(ENOMEDIUM);
  const uint64_t range = header_.l2_range();
  Mapping result;
  uint64_t index = offset / range;
  uint64_t table = l1_entry(index) & kOffsetMask;
  if (table == 0) {
    // Nothing below this L1 entry, nor below those after it that are empty as well.
    uint64_t end = (index + 1) * range;
    while (end < offset + length && (l1_entry(++index) & kOffsetMask) == 0) end += range;
    result.kind = Mapping::Kind::kBelow;
    result.length = std::min(length, end - offset);
    co_return result;
  }
  Slice held;
  if (is_aligned(table, cluster())) held.ref = try_slice(table, offset);
  if (!held.ref) held = co_await slice(table, offset);

  const uint64_t unit = cluster() / subclusters();
  const size_t entries = slice_bytes_ / header_.l2_entry_bytes();
  size_t at = slice_index(offset);
  Entry entry = load_entry(held.ref, at);
  check_entry(entry, offset);
  auto sub = static_cast<unsigned>(offset % cluster() / unit);
  const Type type = classify(entry, sub);
  uint64_t end = align_down(offset, unit) + unit;
  uint64_t host = entry.word & kOffsetMask;
  if (type == Type::kCompressed) {
    result.kind = Mapping::Kind::kEncoded;
    result.compressed = true;
    result.token = entry.word;
    result.length = std::min(length, align_down(offset, cluster()) + cluster() - offset);
    co_return result;
  }
  const bool placed = has_host(entry.word);
  const uint64_t first_host = host + offset % cluster();
  const uint64_t first_cluster = align_down(offset, cluster());
  while (end < offset + length) {
    if (++sub == subclusters()) {
      if (++at == entries) break;
      sub = 0;
      entry = load_entry(held.ref, at);
      if (entry.word & kCompressed) break;
      if (has_host(entry.word) != placed) break;
      if (placed && (entry.word & kOffsetMask) != host + (end - first_cluster)) break;
      check_entry(entry, end);
    }
    if (classify(entry, sub) != type) break;
    end += unit;
  }
  result.length = std::min(length, end - offset);
  if (placed) {
    result.host = data_;
    result.host_offset = first_host;
  }
  switch (type) {
    case Type::kNormal:
      result.kind = Mapping::Kind::kChild;
      break;
    case Type::kZero:
    case Type::kZeroAllocated:
      result.kind = Mapping::Kind::kZero;
      break;
    default:
      result.kind = Mapping::Kind::kBelow;
      break;
  }
  co_return result;
}

}  // namespace cairn
