#include <fmt/core.h>

#include <algorithm>

#include "async/finally.h"
#include "base/arith.h"
#include "block/context.h"
#include "format/qcow2/node.h"

namespace cairn {

using namespace qcow2;

// Persistent dirty bitmaps: loaded when the image is opened, stored when it is closed.
//
// Order, so that a crash never leaves a bitmap that looks complete and is not: all are marked in
// use before the image is written for the first time; what is stored goes to clusters of its own,
// is flushed, and only then does the header point to it; then the former clusters are freed. A
// directory changes in place only in flags, each of which is within one sector.

namespace {

constexpr uint64_t kBatchBytes = 1 << 20;
constexpr uint64_t kTableReserved = ~(kOffsetMask | 1);

[[noreturn]] void bad_table(const BitmapEntry& entry, const std::string& why) {
  throw Error::system(
      EINVAL, "Could not read bitmap_table table from image for bitmap '" + entry.name + "'")
      .hint(why);
}

}  // namespace

// --- reading ---

Task<void> Qcow2Node::read_bitmaps(bool salvage) {
  if (extensions_.stale_bitmaps && header_.version < 3)
    context().warn(
        "This qcow2 v2 image contains bitmaps, but they may have been modified by a program "
        "without persistent bitmap support; so now they must all be considered inconsistent\n"
        "Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix.");
  else if (extensions_.stale_bitmaps)
    context().warn(
        "a program lacking bitmap support modified this file, so all bitmaps are now considered "
        "inconsistent\nSome clusters may be leaked, run 'qemu-img check -r' on the image file to "
        "fix.");
  if (!extensions_.bitmaps || !(header_.autoclear & kAutoclearBitmaps)) co_return;
  const BitmapsExtension& extension = *extensions_.bitmaps;
  const auto end = checked_add(extension.directory_offset, extension.directory_bytes);
  if (!end || *end > align_up(file_->length(), cluster())) {
    const std::string text = "Invalid bitmap directory offset: it is outside the file";
    if (!salvage) throw Error(ErrorKind::kInvalid, text);
    context().warn(text);
    co_return;
  }
  std::vector<std::byte> bytes(extension.directory_bytes);
  co_await read_table(*file_, extension.directory_offset, bytes);
  ByteSpan rest = bytes;
  std::unordered_set<std::string> names;
  for (uint32_t i = 0; i < extension.count; ++i) {
    if (rest.empty())
      throw Error(ErrorKind::kInvalid, "Less bitmaps found than specified in header extension");
    BitmapEntry entry = BitmapEntry::decode(rest, header_);
    rest = rest.subspan(std::min(rest.size(), entry.encoded_bytes));
    if (!names.insert(entry.name).second)
      throw Error(ErrorKind::kExists, "Bitmap already exists: " + entry.name);
    bitmaps_.push_back(std::move(entry));
  }
  if (!rest.empty())
    throw Error(ErrorKind::kInvalid, "More bitmaps found than specified in header extension");
}

Task<std::vector<uint64_t>> Qcow2Node::read_bitmap_table(const BitmapEntry& entry) {
  std::vector<std::byte> bytes(uint64_t{entry.table_entries} * 8);
  co_await read_table(*file_, entry.table_offset, bytes);
  std::vector<uint64_t> table(entry.table_entries);
  for (size_t i = 0; i < table.size(); ++i) table[i] = load_be<uint64_t>(bytes, i * 8);
  co_return table;
}

// Loads the content of those that are not in use. WITH_DATA false: only looks at the tables.
// SALVAGE: one that cannot be read counts as inconsistent.
Task<void> Qcow2Node::load_bitmaps(bool with_data, bool salvage) {
  // A sound image has every cluster once; so no more is read than the file has room for.
  std::unordered_set<uint64_t> seen;
  for (const BitmapEntry& entry : bitmaps_) {
    const bool in_use = (entry.flags & BitmapEntry::kInUse) != 0;
    const uint64_t granularity = uint64_t{1} << entry.granularity_bits;
    DirtyBitmapPtr bitmap;
    if (in_use) {
      bitmap = std::make_shared<DirtyBitmap>(entry.name, length(), granularity,
                                             DirtyBitmap::State::kInconsistent);
    } else {
      bitmap = std::make_shared<DirtyBitmap>(entry.name, length(), granularity);
      std::exception_ptr error;
      try {
        co_await load_bitmap(entry, with_data ? bitmap.get() : nullptr, seen);
      } catch (const Error& caught) {
        if (!salvage) throw;
        context().warn(caught.message());
        error = std::current_exception();
      }
      bitmap->set_enabled((entry.flags & BitmapEntry::kAuto) != 0);
      if (error)
        bitmap = std::make_shared<DirtyBitmap>(entry.name, length(), granularity,
                                               DirtyBitmap::State::kInconsistent);
    }
    bitmap->set_persistent(true);
    bitmap->set_read_only(read_only());
    bitmap->set_unchanged();
    if (!with_data) continue;
    bitmaps().add(bitmap);
    loaded_bitmaps_.push_back(std::move(bitmap));
  }
}

Task<void> Qcow2Node::load_bitmap(const BitmapEntry& entry, DirtyBitmap* into,
                                  std::unordered_set<uint64_t>& seen) {
  const uint64_t bytes =
      DirtyBitmap::serialized_bytes(length(), uint64_t{1} << entry.granularity_bits);
  if (div_ceil(bytes, cluster()) != entry.table_entries)
    throw Error::system(EINVAL, "Could not read bitmap '" + entry.name + "' from image")
        .hint(fmt::format("Its table has {} entries, but {} are needed.", entry.table_entries,
                          div_ceil(bytes, cluster())));
  const uint64_t file_end = align_up(file_->length(), cluster());
  const auto claim = [&](uint64_t offset, uint64_t count) {
    if (into == nullptr) return;
    const auto end = checked_add(offset, count);
    if (!end || *end > file_end)
      bad_table(entry, fmt::format("The range {}+{} is outside the file.", offset, count));
    for (uint64_t c = offset / cluster(); c < div_ceil(*end, cluster()); ++c)
      if (!seen.insert(c).second)
        bad_table(entry, fmt::format("The cluster at {} is used twice.", c * cluster()));
  };
  claim(entry.table_offset, uint64_t{entry.table_entries} * 8);
  const std::vector<uint64_t> table = co_await read_bitmap_table(entry);
  for (const uint64_t one : table) {
    const uint64_t place = one & kOffsetMask;
    if ((one & kTableReserved) != 0 || !is_aligned(place, cluster()) || (place != 0 && (one & 1)))
      bad_table(entry, "A table entry has bits set that must be zero.");
    if (place != 0) claim(place, cluster());
  }
  if (into == nullptr) co_return;
  std::vector<std::byte> piece(cluster());
  for (size_t i = 0; i < table.size(); ++i) {
    if (const uint64_t place = table[i] & kOffsetMask) {
      co_await read_table(*file_, place, piece);
      into->deserialize(i * cluster(), piece);
    } else if (table[i] & 1) {
      into->deserialize_ones(i * cluster(), cluster());
    }
  }
}

// --- while the image is open ---

std::vector<std::byte> Qcow2Node::encode_bitmap_directory(
    const std::vector<BitmapEntry>& entries) const {
  std::vector<std::byte> bytes;
  for (const BitmapEntry& entry : entries) entry.encode(bytes);
  return bytes;
}

// From here on a crash leaves inconsistent bitmaps, never ones that miss a write.
Task<void> Qcow2Node::mark_bitmaps_in_use() {
  std::vector<BitmapEntry> entries = bitmaps_;
  bool changed = false;
  for (BitmapEntry& entry : entries) {
    changed = changed || (entry.flags & BitmapEntry::kInUse) == 0;
    entry.flags |= BitmapEntry::kInUse;
  }
  if (!changed) co_return;
  co_await rewrite_bitmap_directory(std::move(entries));
}

// ENTRIES differ from the directory in flags only.
Task<void> Qcow2Node::rewrite_bitmap_directory(std::vector<BitmapEntry> entries) {
  const std::vector<std::byte> bytes = encode_bitmap_directory(entries);
  co_await file_->write(extensions_.bitmaps->directory_offset, bytes);
  co_await file_->flush();
  bitmaps_ = std::move(entries);
}

void Qcow2Node::check_new_persistent_bitmap(const std::string& name, uint64_t granularity) const {
  const auto refuse = [&](const char* why) {
    throw Error(ErrorKind::kInvalid,
                "Can't make bitmap '" + name + "' persistent in '" +
                    (context().profile.nodes_by_file ? filename() : node_name()) + "': " + why);
  };
  if (header_.version < 3) refuse("Cannot store dirty bitmaps in qcow2 v2 files");
  if (name.size() > kMaxBitmapName) refuse("Name length exceeds maximum (1023 characters)");
  const uint64_t bytes = DirtyBitmap::serialized_bytes(length(), granularity);
  if (bytes == 0) refuse("The disk is empty");
  if (align_up(bytes, cluster()) > DirtyBitmap::kMaxBytes)
    refuse("Too much space will be occupied by the bitmap. Use larger granularity");
  uint64_t count = 1;
  uint64_t directory = align_up(24 + name.size(), 8);
  for (const DirtyBitmapPtr& one : bitmaps().list()) {
    if (!one->persistent()) continue;
    ++count;
    directory += align_up(24 + one->name().size(), 8);
  }
  if (count > kMaxBitmaps) refuse("Maximum number of persistent bitmaps is already reached");
  if (directory > kMaxBitmapDirectoryBytes) refuse("Not enough space in the bitmap directory");
  // The header needs room for the extension.
  Header header = header_;
  Extensions extensions = extensions_;
  extensions.bitmaps = BitmapsExtension{};
  encode_first_cluster(header, extensions);
}

// --- storing ---

// Writes the bits and their table to new clusters, which it adds to PLACED.
Task<void> Qcow2Node::store_bitmap(const DirtyBitmap& bitmap, BitmapEntry& entry,
                                   std::vector<HostRange>& placed) {
  const uint64_t entries = div_ceil(bitmap.serialized_bytes(), cluster());
  if (entries == 0 || entries * cluster() > DirtyBitmap::kMaxBytes)
    throw Error(ErrorKind::kTooLarge,
                "Bitmap '" + bitmap.name() + "' cannot be stored at this size");
  std::vector<std::byte> table(entries * 8);
  const uint64_t batch = std::max<uint64_t>(1, kBatchBytes / cluster());
  std::vector<std::byte> buffer(batch * cluster());
  for (uint64_t i = 0; i < entries;) {
    // Clusters that are not zero, in a row.
    uint64_t count = 0;
    while (count < batch && i + count < entries) {
      const MutableByteSpan piece = MutableByteSpan(buffer).subspan(count * cluster(), cluster());
      if (!bitmap.serialize((i + count) * cluster(), piece) || is_zero(piece)) break;
      ++count;
    }
    for (uint64_t done = 0; done < count;) {
      bool virgin = false;
      const Run run = co_await allocate_some(count - done, &virgin);
      placed.push_back({run.first * cluster(), run.count * cluster()});
      co_await file_->write(run.first * cluster(),
                            ByteSpan(buffer).subspan(done * cluster(), run.count * cluster()));
      for (uint64_t c = 0; c < run.count; ++c)
        store_be<uint64_t>(table, (i + done + c) * 8, (run.first + c) * cluster());
      done += run.count;
    }
    i += count + (count < batch ? 1 : 0);
  }
  entry.table_entries = static_cast<uint32_t>(entries);
  entry.table_offset = co_await allocate(div_ceil(table.size(), cluster()));
  placed.push_back({entry.table_offset, align_up(table.size(), cluster())});
  table.resize(align_up(table.size(), cluster()));
  co_await file_->write(entry.table_offset, table);
}

// What a table and its clusters take; nothing when the table cannot be trusted.
Task<void> Qcow2Node::collect_bitmap(const BitmapEntry& entry, std::vector<HostRange>& ranges) {
  const std::vector<uint64_t> table = co_await read_bitmap_table(entry);
  std::vector<HostRange> found{
      {entry.table_offset, align_up(uint64_t{entry.table_entries} * 8, cluster())}};
  for (const uint64_t one : table) {
    const uint64_t place = one & kOffsetMask;
    if ((one & kTableReserved) != 0 || !is_aligned(place, cluster())) co_return;
    if (place != 0) found.push_back({place, cluster()});
  }
  ranges.insert(ranges.end(), found.begin(), found.end());
}

// A cluster that cannot be freed is a leak, which `check` finds: no reason to fail.
Task<void> Qcow2Node::free_ranges(const std::vector<HostRange>& ranges) {
  Mutex::Guard guard = co_await alloc_mutex_.lock();
  for (const HostRange& range : ranges) {
    try {
      co_await free_now(range.offset / cluster(), range.length / cluster(), Freed::kForGood);
    } catch (const Error& error) {
      context().warn("Failed to free clusters of a bitmap: " + error.cause());
    }
  }
}

// The bitmaps that the image will have, and which clusters stay.
struct Qcow2Node::BitmapPlan {
  struct Item {
    DirtyBitmapPtr bitmap;
    BitmapEntry entry;
    bool rewrite = false;
  };
  std::vector<Item> items;
  std::vector<bool> kept;  // of the bitmaps stored before
  bool same_layout = true;

  std::vector<BitmapEntry> entries() const {
    std::vector<BitmapEntry> result;
    for (const Item& item : items) result.push_back(item.entry);
    return result;
  }
};

Qcow2Node::BitmapPlan Qcow2Node::plan_bitmaps() const {
  BitmapPlan plan;
  plan.kept.resize(bitmaps_.size());
  for (const DirtyBitmapPtr& bitmap : bitmaps().list()) {
    // A downgraded image cannot keep them.
    if (!bitmap->persistent() || header_.version < 3) continue;
    BitmapPlan::Item item{.bitmap = bitmap, .entry = {}, .rewrite = true};
    const auto found = std::find(loaded_bitmaps_.begin(), loaded_bitmaps_.end(), bitmap);
    if (found != loaded_bitmaps_.end()) {
      const auto index = static_cast<size_t>(found - loaded_bitmaps_.begin());
      item.entry = bitmaps_[index];
      item.rewrite = !bitmap->inconsistent() && bitmap->changed();
      plan.kept[index] = !item.rewrite;
      plan.same_layout = plan.same_layout && index == plan.items.size();
    }
    if (!bitmap->inconsistent()) {
      item.entry.name = bitmap->name();
      item.entry.granularity_bits = static_cast<uint8_t>(__builtin_ctzll(bitmap->granularity()));
      item.entry.flags = bitmap->enabled() ? BitmapEntry::kAuto : 0;
    }
    plan.same_layout = plan.same_layout && !item.rewrite;
    plan.items.push_back(std::move(item));
  }
  // All of them are stored again as soon as one has changed, where that layout is wanted.
  if (!plan.same_layout && !context().profile.keep_stored_bitmaps) {
    for (BitmapPlan::Item& item : plan.items) item.rewrite = !item.bitmap->inconsistent();
    for (size_t i = 0; i < plan.kept.size(); ++i)
      plan.kept[i] = plan.kept[i] && loaded_bitmaps_[i] && loaded_bitmaps_[i]->inconsistent();
  }
  plan.same_layout = plan.same_layout && plan.items.size() == bitmaps_.size();
  return plan;
}

Task<void> Qcow2Node::store_bitmaps() {
  if (!bitmaps_loaded_) co_return;
  const BitmapPlan plan = plan_bitmaps();
  std::vector<BitmapEntry> entries = plan.entries();
  if (plan.same_layout) {
    if (bitmaps_.empty()) co_return;
    if (encode_bitmap_directory(entries) != encode_bitmap_directory(bitmaps_))
      co_await rewrite_bitmap_directory(std::move(entries));
    co_return;
  }

  std::vector<HostRange> placed;
  Header header = header_;
  Extensions extensions = extensions_;
  std::vector<std::byte> first_cluster;
  co_await on_failure(
      [&]() -> Task<void> {
        co_await place_bitmaps(plan, entries, placed);
        extensions.bitmaps = co_await place_bitmap_directory(entries, placed);
        header.autoclear &= ~kAutoclearBitmaps;
        if (extensions.bitmaps) header.autoclear |= kAutoclearBitmaps;
        // The refcount structures may have moved meanwhile.
        header.refcount_table_offset = header_.refcount_table_offset;
        header.refcount_table_clusters = header_.refcount_table_clusters;
        header.incompatible = incompatible_now();
        first_cluster = encode_first_cluster(header, extensions);
        co_await refcounts_->write_back();
        co_await file_->flush();
      },
      [&]() -> Task<void> {
        co_await free_ranges(placed);
        co_await refcounts_->write_back();
      });
  std::vector<HostRange> freed;
  if (extensions_.bitmaps)
    freed.push_back({extensions_.bitmaps->directory_offset,
                     align_up(extensions_.bitmaps->directory_bytes, cluster())});
  for (size_t i = 0; i < bitmaps_.size(); ++i)
    if (!plan.kept[i]) co_await collect_bitmap(bitmaps_[i], freed);
  // Should this fail, nobody knows which header is on disk: both sets of clusters stay.
  co_await file_->write(0, first_cluster);
  co_await file_->flush();
  header_.autoclear = header.autoclear;
  header_.backing_offset = header.backing_offset;
  header_.backing_length = header.backing_length;
  extensions_ = extensions;
  co_await free_ranges(freed);
  co_await refcounts_->write_back();
  co_await file_->flush();
  bitmaps_ = std::move(entries);
  loaded_bitmaps_.clear();
  for (const BitmapPlan::Item& item : plan.items) {
    item.bitmap->set_unchanged();
    loaded_bitmaps_.push_back(item.bitmap);
  }
}

Task<void> Qcow2Node::place_bitmaps(const BitmapPlan& plan, std::vector<BitmapEntry>& entries,
                                    std::vector<HostRange>& placed) {
  for (size_t i = 0; i < plan.items.size(); ++i) {
    if (!plan.items[i].rewrite) continue;
    const DirtyBitmap& bitmap = *plan.items[i].bitmap;
    try {
      co_await store_bitmap(bitmap, entries[i], placed);
    } catch (Error& error) {
      error.context("Failed to write bitmap '" + bitmap.name() + "' to file");
      throw;
    }
  }
}

// Writes the directory of ENTRIES to new clusters; there is none without entries.
Task<std::optional<BitmapsExtension>> Qcow2Node::place_bitmap_directory(
    const std::vector<BitmapEntry>& entries, std::vector<HostRange>& placed) {
  if (entries.empty()) co_return std::nullopt;
  const std::vector<std::byte> directory = encode_bitmap_directory(entries);
  const uint64_t clusters = div_ceil(directory.size(), cluster());
  const uint64_t place = co_await allocate(clusters);
  placed.push_back({place, clusters * cluster()});
  co_await file_->write(place, directory);
  co_return BitmapsExtension{.count = static_cast<uint32_t>(entries.size()),
                             .directory_bytes = directory.size(),
                             .directory_offset = place};
}

}  // namespace cairn
