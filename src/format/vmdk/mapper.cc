#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "base/arith.h"
#include "base/buffer.h"
#include "block/block_table.h"
#include "block/context.h"
#include "codec/codec.h"
#include "format/vmdk/node.h"

namespace cairn {

using namespace vmdk;

void VmdkNode::corrupt(const Part& part, const std::string& what) const {
  throw Error(ErrorKind::kCorrupt, "Input/output error").hint(part.name + ": " + what);
}

VmdkNode::Part& VmdkNode::part_at(uint64_t offset) const {
  const auto behind =
      std::upper_bound(parts_.begin(), parts_.end(), offset,
                       [](uint64_t at, const auto& part) { return at < part->begin; });
  return **std::prev(behind);
}

std::optional<FormatNode::Unit> VmdkNode::short_unit(uint64_t offset) const {
  const Part& part = part_at(offset);
  if (part.kind == Kind::kFlat || part.grain == 0) return std::nullopt;
  return Unit{offset - (offset - part.begin) % part.grain, part.grain};
}

Task<Mapping> VmdkNode::map(uint64_t offset, uint64_t length) {
  const Mapping mapping = co_await locate(offset, length);
  if (mapping.kind == Mapping::Kind::kBelow && backing() != nullptr) check_parent();
  co_return mapping;
}

// A parent that changed since the child was made is not what the child was made for.
void VmdkNode::check_parent() {
  if (parent_state_.load(std::memory_order_acquire) == 1) return;
  Node* below = backing();
  while (below->filtered() != nullptr) below = below->filtered();
  const auto* parent = dynamic_cast<const VmdkNode*>(below);
  if (parent != nullptr && parent->cid() == descriptor_.parent_cid()) {
    parent_state_.store(1, std::memory_order_release);
    return;
  }
  throw Error(ErrorKind::kInvalid, "Invalid argument")
      .hint(parent == nullptr
                ? "The backing file '" + below->filename() + "' is not a VMDK image."
                : "The backing file '" + below->filename() +
                      "' was changed after this image was made on it, or is another one.");
}

// As FormatNode does it, without a look at the parent: what is known of this layer is said also
// when the parent is the wrong one.
Task<Extent> VmdkNode::do_extent(uint64_t offset, uint64_t max) {
  const Mapping mapping = co_await locate(offset, max);
  Extent extent;
  extent.length = mapping.length;
  extent.compressed = mapping.compressed;
  extent.data = mapping.kind == Mapping::Kind::kChild || mapping.kind == Mapping::Kind::kEncoded;
  extent.zero = mapping.kind == Mapping::Kind::kZero;
  extent.allocated = mapping.kind != Mapping::Kind::kBelow;
  if (mapping.kind != Mapping::Kind::kChild) co_return extent;
  extent.host = mapping.host;
  extent.host_offset = mapping.host_offset;
  if (reaches_past_end(*mapping.host, mapping.host_offset, mapping.length))
    extent.length =
        co_await stored_bytes(mapping.host, mapping.host_offset, offset, mapping.length);
  const bool flat = part_at(offset).kind == Kind::kFlat;
  if (!flat && mapping.host->driver().kind() == DriverKind::kProtocol) co_return extent;
  const Extent deeper = co_await mapping.host->layer_extent_at(extent.host_offset, extent.length);
  extent.length = std::min(extent.length, deeper.length);
  extent.zero = deeper.zero;
  if (deeper.host != nullptr || mapping.host->driver().kind() != DriverKind::kProtocol) {
    extent.host = deeper.host;
    extent.host_offset = deeper.host_offset;
  }
  co_return extent;
}

Task<Mapping> VmdkNode::locate(uint64_t offset, uint64_t length) {
  Part& part = part_at(offset);
  const uint64_t relative = offset - part.begin;
  const uint64_t most = std::min(length, part.length - relative);
  if (part.kind == Kind::kSparse || part.kind == Kind::kSeSparse) {
    const Mapping found = co_await locate_sparse(part, relative, most);
    co_return found;
  }
  Mapping mapping;
  mapping.length = most;
  if (part.line.access == Access::kNone)
    throw Error::system(EACCES, part.name + ": the descriptor forbids access");
  mapping.kind = part.kind == Kind::kFlat ? Mapping::Kind::kChild : Mapping::Kind::kZero;
  if (part.kind == Kind::kFlat) {
    mapping.host = part.file;
    mapping.host_offset = part.file_offset + relative;
  }
  co_return mapping;
}

uint64_t VmdkNode::table_sector(const Part& part, uint64_t table) const {
  const uint64_t entry = part.gd[table].load(std::memory_order_acquire);
  if (part.kind != Kind::kSeSparse || entry == 0) return entry;
  if (entry >> 32 != 0x10000000)
    corrupt(part, fmt::format("entry {} of the grain directory makes no sense", table));
  return part.sesparse.tables_offset + (entry & 0xffffffff) * SeSparseHeader::kTableSectors;
}

Task<TableCache::Ref> VmdkNode::table_block(Part& part, uint64_t sector, uint64_t grain) {
  const uint64_t entry_bytes = part.kind == Kind::kSeSparse ? 8 : 4;
  const uint64_t in_table = grain % part.per_table * entry_bytes;
  const uint64_t table = sector * kSector;
  // The last sector of a file may be short.
  if (table < part.data_begin || table > part.file->length() ||
      table + part.table_bytes > align_up(part.file->length(), kSector))
    corrupt(part, fmt::format("the grain table at sector {} is outside the file or over its header",
                              sector));
  const uint64_t at = table + align_down(in_table, part.tables->block_bytes());
  TableCache::Ref ref = part.tables->try_get(at);
  if (!ref) ref = co_await part.tables->get(at);
  co_return ref;
}

Task<TableCache::Ref> VmdkNode::readable_block(Part& part, uint64_t sector, uint64_t grain) {
  const uint64_t copy =
      part.redundant ? part.rgd[grain / part.per_table].load(std::memory_order_acquire) : 0;
  TableCache::Ref ref;
  try {
    ref = co_await table_block(part, sector, grain);
  } catch (const Error&) {
    if (copy == 0) throw;
  }
  if (ref) co_return ref;
  ref = co_await table_block(part, copy, grain);
  if (!told_lost_.exchange(true))
    context().warn(fmt::format("VMDK: {}: grain table {} cannot be read; the redundant one counts",
                               part.name, grain / part.per_table));
  co_return ref;
}

size_t VmdkNode::block_entry(const Part& part, uint64_t grain) const {
  const uint64_t entry_bytes = part.kind == Kind::kSeSparse ? 8 : 4;
  return grain % part.per_table * entry_bytes % part.tables->block_bytes() / entry_bytes;
}

uint64_t VmdkNode::load_entry(const Part& part, const TableCache::Ref& ref, uint64_t grain) const {
  const size_t index = block_entry(part, grain);
  if (part.kind == Kind::kSeSparse)
    return cairn::load_entry<uint64_t, std::endian::little>(ref, index);
  return cairn::load_entry<uint32_t, std::endian::little>(ref, index);
}

VmdkNode::Place VmdkNode::decode(const Part& part, uint64_t entry, uint64_t grain) const {
  const auto bad = [&](const char* what) {
    corrupt(part, fmt::format("the entry of grain {} {}", grain, what));
  };
  Place place;
  if (entry == 0) return place;
  uint64_t sector = entry;
  if (part.kind == Kind::kSeSparse) {
    const uint64_t type = entry >> 60;
    place.kind = Place::Kind::kZero;
    if (type == 1 || type == 2) return place;
    if (type != 3) bad("makes no sense");
    const uint64_t number = (entry >> 48 & 0xfff) | (entry & 0xffffffffffff) << 12;
    sector = part.sesparse.grains_offset + number * SeSparseHeader::kGrainSectors;
  } else if (entry == 1) {
    if (!part.zeroed) bad("calls it zeroed in a file without zeroed grains");
    place.kind = Place::Kind::kZero;
    return place;
  }
  place.kind = Place::Kind::kData;
  place.host = sector * kSector;
  if (sector > UINT64_MAX / kSector || place.host >= part.file->length())
    bad("points past the end of the file");
  if (place.host < part.data_begin) bad("points into the metadata");
  return place;
}

std::optional<uint64_t> VmdkNode::pending_entry(uint64_t grain) const {
  const Part& part = *parts_.front();
  std::lock_guard lock(pending_mutex_);
  const auto found = pending_.find(grain / part.per_table);
  if (found == pending_.end()) return std::nullopt;
  return found->second[grain % part.per_table];
}

Task<Mapping> VmdkNode::locate_sparse(Part& part, uint64_t offset, uint64_t length) {
  if (part.line.access == Access::kNone)
    throw Error::system(EACCES, part.name + ": the descriptor forbids access");
  Mapping result;
  uint64_t grain = offset / part.grain;
  uint64_t table = grain / part.per_table;
  uint64_t end = (grain + 1) * part.grain;
  TableCache::Ref ref;
  std::optional<uint64_t> pending;
  if (forward_) pending = pending_entry(grain);
  if (!pending) {
    const uint64_t sector = table_sector(part, table);
    if (sector == 0) {
      end = (table + 1) * part.coverage();
      while (!forward_ && end < offset + length && table_sector(part, ++table) == 0)
        end += part.coverage();
      result.length = std::min(length, end - offset);
      co_return result;
    }
    ref = co_await readable_block(part, sector, grain);
  }
  const Place first = decode(part, pending ? *pending : load_entry(part, ref, grain), grain);
  if (first.kind == Place::Kind::kData && part.compressed) {
    result.kind = Mapping::Kind::kEncoded;
    result.compressed = true;
    result.token = first.host;
    result.length = std::min(length, end - offset);
    co_return result;
  }
  uint64_t host = first.host;
  while (ref && end < offset + length) {
    ++grain;
    if (block_entry(part, grain) == 0 || grain % part.per_table == 0) break;
    const Place next = decode(part, load_entry(part, ref, grain), grain);
    host += part.grain;
    if (next.kind != first.kind || (next.kind == Place::Kind::kData && next.host != host)) break;
    end += part.grain;
  }
  result.length = std::min(length, end - offset);
  if (first.kind == Place::Kind::kZero) {
    result.kind = Mapping::Kind::kZero;
  } else if (first.kind == Place::Kind::kData) {
    result.kind = Mapping::Kind::kChild;
    result.host = part.file;
    result.host_offset = first.host + offset % part.grain;
  }
  co_return result;
}

Task<void> VmdkNode::read_encoded(const Mapping& mapping, uint64_t offset, MutableByteSpan out) {
  Part& part = part_at(offset);
  const uint64_t relative = offset - part.begin;
  const uint64_t grain = relative / part.grain;
  const uint64_t room = part.file->length() - mapping.token;
  const uint64_t first = std::min<uint64_t>(room, std::max<uint64_t>(part.grain / 2, kSector));
  const uint64_t most = std::min(room, 2 * part.grain);
  AlignedBuffer buffer(std::max<uint64_t>(most, kSector));
  uint64_t begin = 0;
  uint64_t bytes = most;
  co_await part.file->read(mapping.token, buffer.span().first(first));
  if (part.markers) {
    if (room < Marker::kDataOffset) corrupt(part, "a compressed grain is cut");
    const Marker marker = Marker::decode(std::as_const(buffer).span().first(kSector));
    begin = Marker::kDataOffset;
    bytes = begin + marker.bytes;
    if (marker.bytes == 0 || bytes > most)
      corrupt(part,
              fmt::format("compressed grain {} has a wrong size of {} bytes", grain, marker.bytes));
  }
  if (bytes > first)
    co_await part.file->read(mapping.token + first, buffer.span().subspan(first, bytes - first));
  const ByteSpan encoded = std::as_const(buffer).span().subspan(begin, bytes - begin);
  // Deflate cannot make more of it: no memory for promises.
  const uint64_t needed = std::min(part.grain, part.length - grain * part.grain);
  if (encoded.size() * 1040 < needed)
    corrupt(part, fmt::format("compressed grain {} is too short", grain));
  AlignedBuffer whole;
  MutableByteSpan plain = out;
  if (out.size() != part.grain) {
    whole = AlignedBuffer(part.grain);
    plain = whole.span();
  }
  const size_t made = decompress_zlib(encoded, plain);
  // The last grain of the disk may have been stored short.
  if (made < needed) corrupt(part, fmt::format("compressed grain {} is too short", grain));
  if (out.size() != part.grain)
    std::memcpy(out.data(), plain.data() + relative % part.grain, out.size());
}

}  // namespace cairn
