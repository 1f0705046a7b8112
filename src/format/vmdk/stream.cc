#include <algorithm>
#include <cstring>

#include "base/arith.h"
#include "codec/codec.h"
#include "format/vmdk/node.h"

namespace cairn {

using namespace vmdk;

void VmdkNode::set_compression_level(uint64_t level) {
  check_level(Compression::kDeflate, level);
  compression_level_ = static_cast<int>(level);
}

// Always a whole grain: not every reader knows short ones.
std::vector<std::byte> VmdkNode::encode_cluster(ByteSpan plain) const {
  if (!stream_) return {};
  const uint64_t grain = parts_.front()->grain;
  const uint64_t limit = 2 * grain - Marker::kDataOffset;
  std::vector<std::byte> encoded;
  if (plain.size() == grain) {
    encoded = compress_zlib(plain, limit, compression_level_);
  } else {
    std::vector<std::byte> padded(grain);
    std::memcpy(padded.data(), plain.data(), std::min(plain.size(), padded.size()));
    encoded = compress_zlib(padded, limit, compression_level_);
  }
  if (encoded.empty()) throw Error::system(EIO, "a grain could not be compressed");
  return encoded;
}

Task<void> VmdkNode::do_write(uint64_t offset, ByteSpan in, WriteFlags flags) {
  if (stream_) return write_stream(offset, in);
  return FormatNode::do_write(offset, in, flags);
}

Task<void> VmdkNode::write_stream(uint64_t offset, ByteSpan in) {
  const uint64_t grain = parts_.front()->grain;
  if (offset % grain != 0 || (in.size() % grain != 0 && offset + in.size() != length()))
    throw Error::system(EINVAL);
  while (!in.empty()) {
    const ByteSpan plain = in.first(std::min<uint64_t>(grain, in.size()));
    const std::vector<std::byte> encoded = encode_cluster(plain);
    co_await write_encoded(offset, encoded, plain);
    offset += plain.size();
    in = in.subspan(plain.size());
  }
}

Task<void> VmdkNode::store_encoded(uint64_t offset, ByteSpan encoded) {
  if (!stream_) throw Error::system(ENOTSUP);
  co_await store_grain(*parts_.front(), offset, encoded);
}

// A disk of zeroes is a stream as well.
Task<void> VmdkNode::finish_encoded() {
  if (!stream_) co_return;
  Part& part = *parts_.front();
  Mutex::Guard guard = co_await stream_mutex_.lock();
  if (!part.footer && part.file->length() <= part.header.overhead * kSector)
    co_await begin_stream(part);
}

Task<void> VmdkNode::store_grain(Part& part, uint64_t offset, ByteSpan encoded) {
  if (!part.markers) throw Error::system(EINVAL);
  Mutex::Guard guard = co_await stream_mutex_.lock();
  co_await begin_stream(part);
  const Mapping there = co_await locate(offset, 1);
  if (there.kind == Mapping::Kind::kEncoded)
    throw Error(ErrorKind::kIo, "Input/output error")
        .hint("Could not write to allocated cluster for streamOptimized");
  const uint64_t grain = offset / part.grain;
  const uint64_t bytes = align_up(Marker::kDataOffset + encoded.size(), kSector);
  if (part.next / kSector > UINT32_MAX) throw Error::system(EFBIG);
  std::vector<std::byte> buffer(bytes);
  const Marker marker{.value = offset / kSector,
                      .bytes = static_cast<uint32_t>(encoded.size()),
                      .type = Marker::kEnd};
  marker.encode(buffer);
  std::memcpy(buffer.data() + Marker::kDataOffset, encoded.data(), encoded.size());
  if (forward_) {
    // The tables of what is before are complete, as the order is ascending as a rule.
    while (true) {
      uint64_t table = 0;
      {
        std::lock_guard lock(pending_mutex_);
        if (pending_.empty() || pending_.begin()->first >= grain / part.per_table) break;
        table = pending_.begin()->first;
      }
      co_await end_table(part, table);
    }
  }
  const uint64_t sector = part.next / kSector;
  co_await append(part, buffer);
  co_await point(part, grain, static_cast<uint32_t>(sector));
}

Task<void> VmdkNode::append(Part& part, ByteSpan bytes) {
  co_await part.file->write(part.next, bytes);
  part.next += bytes.size();
}

// The entry of GRAIN: in the file's tables, or in those that will be written after the grains.
Task<void> VmdkNode::point(Part& part, uint64_t grain, uint32_t sector) {
  const uint64_t table = grain / part.per_table;
  if (!forward_) {
    part.tables->write_after_file_flush();
    if (part.gd[table].load(std::memory_order_acquire) == 0) {
      co_await make_table(part, table);
      part.next = align_up(part.next, kSector);
    }
    co_await set_entries(part, grain, 1, sector, 0);
    co_return;
  }
  bool known = false;
  {
    std::lock_guard lock(pending_mutex_);
    known = pending_.contains(table);
  }
  std::vector<uint32_t> entries(part.per_table);
  const uint64_t place = known ? 0 : table_sector(part, table);
  if (place != 0) {
    for (uint64_t i = 0; i < part.per_table; ++i) {
      const TableCache::Ref ref = co_await table_block(part, place, table * part.per_table + i);
      entries[i] = static_cast<uint32_t>(load_entry(part, ref, table * part.per_table + i));
    }
  }
  std::lock_guard lock(pending_mutex_);
  if (!known) pending_.emplace(table, std::move(entries));
  pending_[table][grain % part.per_table] = sector;
}

Task<uint64_t> VmdkNode::zero_stream(Part& part, uint64_t offset, uint64_t length) {
  const uint64_t grain = offset / part.grain;
  if (offset % part.grain != 0) co_return 0;
  if (length < part.grain && offset + length != part.length) co_return 0;
  if (!part.zeroed) {
    const std::vector<std::byte> zeroes(part.grain);
    const std::vector<std::byte> encoded = encode_cluster(zeroes);
    co_await store_grain(part, offset, encoded);
  } else {
    Mutex::Guard guard = co_await stream_mutex_.lock();
    co_await begin_stream(part);
    co_await point(part, grain, 1);
  }
  co_return std::min(part.grain, length);
}

// --- the ends of a stream ---

// What is empty becomes a stream whose tables are written after the grains; such a stream is cut
// where its directory begins; what has its tables in front keeps them there.
Task<void> VmdkNode::begin_stream(Part& part) {
  if (part.touched.load(std::memory_order_acquire)) co_return;
  co_await begin_change();
  if (part.footer) {
    const uint64_t cut = part.gd_offset - kSector;
    std::vector<std::byte> sector(kSector);
    co_await part.file->read(cut, sector);
    const Marker marker = Marker::decode(sector);
    if (marker.bytes != 0 || marker.type != Marker::kDirectory)
      corrupt(part, "there is no marker before the grain directory");
    co_await part.file->resize({.length = cut});
    part.next = cut;
    forward_ = true;
  } else {
    bool empty = part.file->length() <= part.header.overhead * kSector;
    for (uint64_t table = 0; part.zeroed && empty && table < part.table_count; ++table) {
      const uint64_t place = table_sector(part, table);
      if (place == 0) continue;
      const TableCache::Ref ref = co_await table_block(part, place, table * part.per_table);
      empty = is_zero(ref.bytes());
    }
    part.next = align_up(part.file->length(), kSector);
    if (empty) {
      SparseHeader header = part.header;
      header.flags &= ~kFlagRedundant;
      header.version = 3;
      header.rgd_offset = 0;
      header.gd_offset = kGdAtEnd;
      header.overhead = align_up(header.descriptor_offset + header.descriptor_sectors,
                                 std::max<uint64_t>(header.grain, 1));
      std::vector<std::byte> sector(kSector);
      header.encode(sector);
      // Whatever is cut off here, an empty disk was in the file.
      co_await part.file->write(0, sector);
      co_await part.file->resize(
          {.length = header.descriptor_offset * kSector + header.descriptor_sectors * kSector});
      co_await part.file->resize({.length = header.overhead * kSector});
      part.header = header;
      part.redundant = false;
      part.footer = true;
      part.next = header.overhead * kSector;
      for (uint64_t table = 0; table < part.table_count; ++table) part.gd[table] = 0;
      part.tables->forget(0, part.gd_offset + (uint64_t{1} << 20));
      forward_ = true;
    }
  }
  part.touched.store(true, std::memory_order_release);
}

Task<void> VmdkNode::end_table(Part& part, uint64_t table) {
  std::vector<uint32_t> entries;
  {
    std::lock_guard lock(pending_mutex_);
    entries = pending_.at(table);
  }
  std::vector<std::byte> bytes(kSector + part.table_bytes);
  const Marker marker{.value = part.table_bytes / kSector, .bytes = 0, .type = Marker::kTable};
  marker.encode(bytes);
  for (size_t i = 0; i < entries.size(); ++i)
    store_le<uint32_t>(bytes, kSector + i * 4, entries[i]);
  const uint64_t place = part.next + kSector;
  if (place / kSector > UINT32_MAX) throw Error::system(EFBIG);
  co_await append(part, bytes);
  part.tables->forget(place, part.table_bytes);
  part.gd[table].store(place / kSector, std::memory_order_release);
  std::lock_guard lock(pending_mutex_);
  pending_.erase(table);
}

Task<void> VmdkNode::finish_stream() {
  Part& part = *parts_.front();
  if (!forward_) {
    co_await flush_mapped();
    co_return;
  }
  Mutex::Guard guard = co_await stream_mutex_.lock();
  while (!pending_.empty()) co_await end_table(part, pending_.begin()->first);
  const uint64_t directory = align_up(part.table_count * 4, kSector);
  std::vector<std::byte> bytes(kSector + directory);
  const Marker before{.value = directory / kSector, .bytes = 0, .type = Marker::kDirectory};
  before.encode(bytes);
  for (uint64_t table = 0; table < part.table_count; ++table)
    store_le<uint32_t>(bytes, kSector + table * 4,
                       static_cast<uint32_t>(part.gd[table].load(std::memory_order_acquire)));
  SparseHeader footer = part.header;
  footer.gd_offset = part.next / kSector + 1;
  bytes.resize(bytes.size() + 3 * kSector);
  const size_t at = kSector + directory;
  const Marker last{.value = 1, .bytes = 0, .type = Marker::kFooter};
  last.encode(MutableByteSpan(bytes).subspan(at));
  footer.encode(MutableByteSpan(bytes).subspan(at + kSector, kSector));
  // Nothing is reported of a stream before all of it is on the disk.
  co_await part.file->flush();
  co_await append(part, bytes);
  if (part.file->length() != part.next) co_await part.file->resize({.length = part.next});
  co_await part.file->flush();
}

}  // namespace cairn
