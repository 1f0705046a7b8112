#include <algorithm>

#include "base/arith.h"
#include "format/vmdk/node.h"

namespace cairn {

using namespace vmdk;

// --- tables and directories of which one copy is lost ---

// A copy of the table at sector FROM in a place of its own; durable before anything points to it.
Task<uint64_t> VmdkNode::copy_table(Part& part, uint64_t from) {
  std::vector<std::byte> bytes(part.table_bytes);
  co_await part.tables->write_back();
  co_await part.file->read(from * kSector, bytes);
  bool virgin = false;
  const uint64_t place = take(part, bytes.size(), &virgin);
  co_await part.file->write(place, bytes);
  co_await part.file->flush();
  co_return place / kSector;
}

// One copy of TABLE cannot be read: it is made again from the other one.
Task<void> VmdkNode::renew_table(Part& part, uint64_t table, bool second) {
  co_await begin_change();
  part.touched.store(true, std::memory_order_release);
  auto& lost = second ? part.rgd[table] : part.gd[table];
  const auto& good = second ? part.gd[table] : part.rgd[table];
  const uint64_t sector = co_await copy_table(part, good.load(std::memory_order_acquire));
  std::vector<std::byte> entry(4);
  store_le<uint32_t>(entry, 0, static_cast<uint32_t>(sector));
  co_await part.file->write((second ? part.rgd_offset : part.gd_offset) + table * 4, entry);
  lost.store(sector, std::memory_order_release);
}

// The same for a whole directory, with tables of its own. The header names it last.
Task<void> VmdkNode::renew_directory(Part& part) {
  co_await begin_change();
  part.touched.store(true, std::memory_order_release);
  const bool second = part.lost == Part::Lost::kRedundant;
  std::vector<std::byte> bytes(align_up(part.table_count * 4, kSector));
  for (uint64_t table = 0; table < part.table_count; ++table) {
    uint64_t sector = part.gd[table].load(std::memory_order_acquire);
    if (sector != 0) sector = co_await copy_table(part, sector);
    store_le<uint32_t>(bytes, table * 4, static_cast<uint32_t>(sector));
  }
  bool virgin = false;
  const uint64_t place = take(part, bytes.size(), &virgin);
  co_await part.file->write(place, bytes);
  co_await part.file->flush();
  std::vector<std::byte> field(8);
  store_le<uint64_t>(field, 0, place / kSector);
  co_await part.file->write(second ? SparseHeader::kRgdField : SparseHeader::kGdField, field);
  co_await part.file->flush();
  // From now on both are there.
  (second ? part.header.rgd_offset : part.header.gd_offset) = place / kSector;
  part.gd_offset = part.header.gd_offset * kSector;
  part.rgd_offset = part.header.rgd_offset * kSector;
  part.redundant = true;
  part.lost = Part::Lost::kNone;
  co_await load_directory(part, part.gd_offset, part.gd);
  co_await load_directory(part, part.rgd_offset, part.rgd);
}

// --- streams that were cut before their footer ---

// The grains that follow each other from the start of the stream on; where KEEP is true their
// entries are noted as those of tables that have yet to be written. Gives their number, and in END
// where the last thing that is whole ends.
Task<uint64_t> VmdkNode::scan_stream(Part& part, bool keep, uint64_t* end) {
  const uint64_t length = part.file->length();
  const uint64_t grains = div_ceil(part.length, part.grain);
  uint64_t count = 0;
  uint64_t at = part.header.overhead * kSector;
  std::vector<std::byte> head(16);
  while (at + kSector <= length) {
    co_await part.file->read(at, head);
    const Marker marker = Marker::decode(head);
    uint64_t next = 0;
    if (marker.bytes == 0) {
      const bool table = marker.type == Marker::kTable || marker.type == Marker::kDirectory;
      if (!table || marker.value > (length - at) / kSector) break;
      next = at + (1 + marker.value) * kSector;
    } else {
      const uint64_t grain = marker.value / (part.grain / kSector);
      next = at + align_up(Marker::kDataOffset + uint64_t{marker.bytes}, kSector);
      if (marker.value % (part.grain / kSector) != 0 || grain >= grains ||
          marker.bytes > 2 * part.grain || at / kSector > UINT32_MAX)
        break;
      if (next <= length && keep) {
        std::vector<uint32_t>& entries = pending_[grain / part.per_table];
        entries.resize(part.per_table);
        entries[grain % part.per_table] = static_cast<uint32_t>(at / kSector);
      }
      count += next <= length ? 1 : 0;
    }
    if (next > length) break;
    at = next;
  }
  *end = at;
  co_return count;
}

// Cuts off what is not whole, and writes tables, directory and footer after the grains.
Task<void> VmdkNode::rescue_stream() {
  Part& part = *parts_.front();
  uint64_t end = 0;
  co_await scan_stream(part, true, &end);
  co_await part.file->resize({.length = end});
  part.next = end;
  part.touched.store(true, std::memory_order_release);
  forward_ = true;
  co_await finish_stream();
  // Complete again: closing has nothing to add.
  forward_ = false;
  lost_footer_ = false;
}

}  // namespace cairn
