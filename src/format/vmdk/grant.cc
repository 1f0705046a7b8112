#include <algorithm>

#include "base/arith.h"
#include "block/block_table.h"
#include "block/context.h"
#include "block/fixed_storage.h"
#include "format/vmdk/node.h"

namespace cairn {

using namespace vmdk;

// --- the first change of a session ---

Task<void> VmdkNode::begin_change() {
  if (changed_.load(std::memory_order_acquire)) co_return;
  Mutex::Guard guard = co_await change_mutex_.lock();
  if (changed_.load(std::memory_order_acquire)) co_return;
  descriptor_.set_cid(random_cid());
  descriptor_.drop("changeTrackPath");
  co_await store_descriptor();
  if (!stream_) co_await mark_unclean(true);
  for (const auto& part : parts_)
    if (part->writable && part->kind == Kind::kSparse) co_await part->file->flush();
  co_await file_->flush();
  changed_.store(true, std::memory_order_release);
}

// The descriptor is replaced in one write where it is; NULs fill the room after it.
Task<void> VmdkNode::store_descriptor() {
  const std::string& text = descriptor_.text();
  const uint64_t room = descriptor_bytes_;
  if (room != 0 && text.size() > room)
    throw Error(ErrorKind::kNoSpace, "No space left for the descriptor in the image");
  std::vector<std::byte> bytes(room != 0 ? room : text.size());
  store_text(bytes, 0, text);
  co_await file_->write(descriptor_offset_, bytes);
  if (room == 0 && file_->length() != bytes.size())
    co_await file_->resize({.length = bytes.size()});
}

Task<void> VmdkNode::mark_unclean(bool unclean) {
  const std::vector<std::byte> byte(1, std::byte{unclean});
  for (const auto& part : parts_) {
    if (!part->writable || part->kind != Kind::kSparse || part->cowd || part->compressed) continue;
    co_await part->file->write(kUncleanOffset, byte);
  }
}

// --- room ---

uint64_t VmdkNode::take(Part& part, uint64_t bytes, bool* virgin) {
  std::lock_guard lock(part.allocating);
  const uint64_t place = part.next;
  if ((place + bytes) / kSector > uint64_t{1} << 32)
    throw Error(ErrorKind::kTooLarge, "File too large")
        .hint(part.name + ": a sparse extent holds 2 TiB at most.");
  part.next = align_up(place + bytes, part.grain);
  *virgin = place >= part.virgin;
  part.virgin = std::max(part.virgin, part.next);
  return place;
}

// A table, in both copies, that the directories do not have yet.
Task<void> VmdkNode::make_table(Part& part, uint64_t table) {
  Mutex::Guard guard = co_await part.making_tables.lock();
  if (part.gd[table].load(std::memory_order_acquire) != 0) co_return;
  const bool both = part.redundant && part.rgd[table].load(std::memory_order_acquire) == 0;
  const uint64_t bytes = part.table_bytes * (both ? 2 : 1);
  bool virgin = false;
  const uint64_t place = take(part, bytes, &virgin);
  const std::vector<std::byte> zeroes(bytes);
  co_await part.file->write(place, zeroes);
  co_await part.file->flush();
  std::vector<std::byte> entry(4);
  if (both) {
    const uint64_t second = (place + part.table_bytes) / kSector;
    store_le<uint32_t>(entry, 0, static_cast<uint32_t>(second));
    co_await part.file->write(part.rgd_offset + table * 4, entry);
    part.rgd[table].store(second, std::memory_order_release);
  }
  store_le<uint32_t>(entry, 0, static_cast<uint32_t>(place / kSector));
  co_await part.file->write(part.gd_offset + table * 4, entry);
  part.gd[table].store(place / kSector, std::memory_order_release);
}

// The last grain may have been written in part: nobody reads a grain that is not all in the file.
Task<void> VmdkNode::complete_last_grain(Part& part) {
  if (stream_) co_return;
  uint64_t end = 0;
  {
    std::lock_guard lock(part.allocating);
    end = part.next;
  }
  if (part.file->length() < end) co_await make_room(*part.file, end);
}

// COUNT entries from that of GRAIN on, all of one table: SECTOR, SECTOR + STEP, ….
Task<void> VmdkNode::set_entries(Part& part, uint64_t grain, uint64_t count, uint64_t sector,
                                 uint64_t step) {
  const uint64_t table = grain / part.per_table;
  for (const bool second : {true, false}) {
    if (second && !part.redundant) continue;
    const uint64_t place =
        second ? part.rgd[table].load(std::memory_order_acquire) : table_sector(part, table);
    if (place == 0) continue;
    for (uint64_t done = 0; done < count;) {
      const TableCache::Ref ref = co_await table_block(part, place, grain + done);
      const uint64_t in_block = part.tables->block_bytes() / 4;
      for (size_t index = block_entry(part, grain + done); index < in_block && done < count;
           ++index, ++done)
        store_entry<uint32_t, std::endian::little>(ref, index,
                                                   static_cast<uint32_t>(sector + done * step));
      part.tables->mark_dirty(ref);
    }
  }
}

Task<Grant> VmdkNode::grant(uint64_t offset, uint64_t length, bool exclusive) {
  Part& part = part_at(offset);
  const uint64_t relative = offset - part.begin;
  length = std::min(length, part.length - relative);
  if (!part.writable)
    throw Error::system(part.kind == Kind::kZero ? EIO : EACCES,
                        "extent '" + part.name + "' cannot be written");
  if (part.compressed) throw Error::system(EINVAL);
  Mapping there = co_await locate(offset, length);
  if (there.kind != Mapping::Kind::kChild && !exclusive) co_return Grant{};
  co_await begin_change();
  part.touched.store(true, std::memory_order_release);
  std::unique_ptr<Held> held;
  uint64_t grain = 0;
  uint64_t count = 0;
  if (there.kind != Mapping::Kind::kChild) {
    const uint64_t in_table = part.coverage() - relative % part.coverage();
    const uint64_t most = std::min(there.length, in_table);
    grain = relative / part.grain;
    count = div_ceil(relative + most, part.grain) - grain;
    if (uneven_) {
      held = std::make_unique<Held>();
      co_await grain_locks_.acquire(held->guard, part.begin + grain * part.grain,
                                    count * part.grain, true);
      there = co_await locate(offset, most);
      count = div_ceil(relative + there.length, part.grain) - grain;
    }
    there.length = std::min(there.length, most);
  }
  if (there.kind == Mapping::Kind::kChild) co_return grant_in_place(offset, there);
  if (part.gd[grain / part.per_table].load(std::memory_order_acquire) == 0)
    co_await make_table(part, grain / part.per_table);
  bool virgin = false;
  const uint64_t host = take(part, count * part.grain, &virgin);
  Grant place =
      grant_new(offset, there.length, part.begin + grain * part.grain,
                part.begin + std::min((grain + count) * part.grain, part.length), part.file, host);
  place.host_is_zero = virgin;
  place.token[0] = grain;
  place.token[1] = count;
  place.token[2] = host;
  place.token[3] = reinterpret_cast<uint64_t>(held.release());
  co_return place;
}

Task<void> VmdkNode::publish(Grant place) {
  const std::unique_ptr<Held> held(reinterpret_cast<Held*>(place.token[3]));
  Part& part = part_at(place.offset);
  part.tables->write_after_file_flush();
  co_await set_entries(part, place.token[0], place.token[1], place.token[2] / kSector,
                       part.grain / kSector);
}

Task<void> VmdkNode::abandon(Grant place) {
  const std::unique_ptr<Held> held(reinterpret_cast<Held*>(place.token[3]));
  Part& part = part_at(place.offset);
  std::lock_guard lock(part.allocating);
  if (part.next == place.token[2] + place.token[1] * part.grain) part.next = place.token[2];
  co_return;
}

// --- zeroes ---

// Grains keep their place: what is in use is zeroed there, as a hole where the file can have them.
Task<uint64_t> VmdkNode::zero_mapped(uint64_t offset, uint64_t length, bool may_unmap) {
  Part& part = part_at(offset);
  const uint64_t relative = offset - part.begin;
  const Mapping there = co_await locate(offset, length);
  if (there.kind == Mapping::Kind::kZero) {
    if (part.kind == Kind::kZero) throw Error::system(EIO, "extent of type ZERO");
    co_return there.length;
  }
  if (there.kind == Mapping::Kind::kBelow && backing() == nullptr) co_return there.length;
  if (!part.writable) throw Error::system(EACCES, "extent '" + part.name + "' cannot be written");
  if (there.kind == Mapping::Kind::kEncoded)
    throw Error::system(EIO, "Could not write to allocated cluster for streamOptimized");
  if (there.kind == Mapping::Kind::kChild) {
    co_await begin_change();
    part.touched.store(true, std::memory_order_release);
    co_await part.file->write_zeroes(there.host_offset, there.length, {.may_unmap = may_unmap});
    co_return there.length;
  }
  if (stream_) {
    const uint64_t done = co_await zero_stream(part, offset, there.length);
    co_return done;
  }
  if (!part.zeroed || part.compressed || relative % part.grain != 0) co_return 0;
  const uint64_t grain = relative / part.grain;
  uint64_t count = there.length / part.grain;
  if (relative + there.length == part.length) count = div_ceil(there.length, part.grain);
  count = std::min(count, part.per_table - grain % part.per_table);
  if (count == 0) co_return 0;
  co_await begin_change();
  part.touched.store(true, std::memory_order_release);
  RangeLock::Guard guard;
  if (uneven_) {
    co_await grain_locks_.acquire(guard, part.begin + grain * part.grain, count * part.grain, true);
    const Mapping again = co_await locate(offset, there.length);
    if (again.kind != Mapping::Kind::kBelow || again.length < there.length) co_return 0;
  }
  if (part.gd[grain / part.per_table].load(std::memory_order_acquire) == 0)
    co_await make_table(part, grain / part.per_table);
  co_await set_entries(part, grain, count, 1, 0);
  co_return std::min(count * part.grain, part.length - relative);
}

Task<void> VmdkNode::discard_mapped(uint64_t offset, uint64_t length) {
  while (length != 0) {
    Part& part = part_at(offset);
    const Mapping there = co_await locate(offset, length);
    if (there.kind == Mapping::Kind::kChild && part.writable) {
      co_await begin_change();
      part.touched.store(true, std::memory_order_release);
      co_await part.file->discard(there.host_offset, there.length);
    }
    offset += there.length;
    length -= there.length;
  }
}

// --- flush, close ---

Task<void> VmdkNode::flush_mapped() {
  for (const auto& part : parts_) {
    if (!part->writable || !part->touched.load(std::memory_order_acquire)) continue;
    if (part->kind == Kind::kSparse && !stream_) {
      co_await complete_last_grain(*part);
      co_await part->tables->write_back();
    } else if (part->kind == Kind::kSparse && !forward_) {
      co_await part->tables->write_back();
    }
    co_await part->file->flush();
  }
  if (changed_.load(std::memory_order_acquire)) co_await file_->flush();
}

Task<void> VmdkNode::do_close() {
  if (read_only() || !changed_.load(std::memory_order_acquire)) co_return;
  if (stream_) {
    co_await finish_stream();
    co_return;
  }
  for (const auto& part : parts_) {
    if (!part->cowd || !part->writable || !part->touched) continue;
    std::vector<std::byte> sector(4);
    store_le<uint32_t>(sector, 0, static_cast<uint32_t>(part->next / kSector));
    co_await part->file->write(CowdHeader::kFreeSectorOffset, sector);
  }
  co_await mark_unclean(false);
  co_await flush_mapped();
}

// --- changes of the parent ---

// The content ID of the image NAME, which this one would name as its parent, as it is in the file.
Task<uint32_t> VmdkNode::stored_cid(std::string name) {
  OpenRequest look;
  look.filename = resolve_backing_name(filename(), name);
  look.format = "vmdk";
  look.flags.metadata_only = true;
  look.flags.no_backing = true;
  look.flags.force_share = true;
  NodePtr parent = co_await open_node(context(), std::move(look));
  const uint32_t cid = static_cast<VmdkNode&>(*parent).cid();
  co_await parent->close();
  co_return cid;
}

Task<void> VmdkNode::change_backing(std::string name, std::string format) {
  if (read_only()) throw Error::system(EACCES);
  if (any_flat_ && !name.empty())
    throw Error(ErrorKind::kUnsupported, "Flat image can't have backing file");
  if (!name.empty() && !format.empty() && format != "vmdk")
    throw Error(ErrorKind::kInvalid, "Invalid backing file format: " + format + ". Must be vmdk");
  uint32_t parent_cid = kNoParent;
  if (!name.empty()) {
    parent_cid = co_await stored_cid(name);
  }
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  co_await begin_change();
  co_await flush_mapped();
  Descriptor changed = descriptor_;
  changed.set_parent(name, parent_cid);
  std::swap(changed, descriptor_);
  std::exception_ptr error;
  try {
    co_await store_descriptor();
    co_await file_->flush();
  } catch (...) {
    error = std::current_exception();
    std::swap(changed, descriptor_);
  }
  if (error) std::rethrow_exception(error);
}

// Also notes in the child that it belongs to the parent as it is now: committing changed that.
Task<bool> VmdkNode::make_empty() {
  if (any_flat_ || stream_) co_return false;
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  co_await begin_change();
  for (const auto& part : parts_) {
    if (part->kind != Kind::kSparse) continue;
    part->touched = true;
    uint64_t tables_end = part->data_begin;
    const uint64_t grains = div_ceil(part->length, part->grain);
    for (uint64_t table = 0; table < part->table_count; ++table) {
      const uint64_t sector = table_sector(*part, table);
      if (sector == 0) continue;
      const uint64_t first = table * part->per_table;
      co_await set_entries(*part, first, std::min(part->per_table, grains - first), 0, 0);
      tables_end = std::max(tables_end, sector * kSector + part->table_bytes);
      if (part->redundant)
        tables_end = std::max(tables_end, part->rgd[table].load() * kSector + part->table_bytes);
    }
    co_await part->tables->write_back();
    co_await part->file->flush();
    const uint64_t end =
        align_up(std::max({tables_end, part->header.overhead * kSector,
                           part->gd_offset + align_up(part->table_count * 4, kSector)}),
                 part->grain);
    if (end < part->file->length()) co_await part->file->resize({.length = end});
    part->next = end;
    part->virgin = part->file->reads_zero_when_created() ? end : UINT64_MAX;
  }
  if (!descriptor_.parent_hint().empty()) {
    const uint32_t cid = co_await stored_cid(descriptor_.parent_hint());
    descriptor_.set_parent(descriptor_.parent_hint(), cid);
    co_await store_descriptor();
    co_await file_->flush();
    parent_state_ = 0;
  }
  co_return true;
}

}  // namespace cairn
