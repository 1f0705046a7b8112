#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "base/arith.h"
#include "block/capabilities/storage_use.h"
#include "block/context.h"
#include "format/qcow2/node.h"
#include "format/qcow2/repair_journal.h"

namespace cairn {

using namespace qcow2;

namespace {
constexpr uint64_t kDefaultL2CacheBytes = 32u << 20;
constexpr uint64_t kMinRefcountBlocks = 4;
constexpr uint64_t kRefcountCacheBytes = 256 << 10;
constexpr uint64_t kDefaultCleanInterval = 600;  // seconds
}  // namespace

Qcow2Node::Qcow2Node(Context& context, const Driver& driver, NodePtr file)
    : FormatOf(context, driver, std::move(file)), data_(file_) {}

Task<void> Qcow2Node::load(OpenContext& request) {
  metadata_only_ = request.flags.metadata_only;
  const bool for_check = request.flags.for_check;
  begin_opening(request.flags);
  co_await read_header(for_check || request.flags.salvage);
  co_await undo_interrupted_repair(for_check);
  if (!read_only() && !for_check && (header_.incompatible & kIncompatCorrupt))
    throw Error(ErrorKind::kDenied, "qcow2: Image is corrupt; cannot be opened read/write");
  pass_discard_request_ = request.flags.discard_unmap;
  configure(request.options);
  // The checker reads the table as it is.
  if (!for_check) co_await read_snapshots();
  co_await read_bitmaps(request.flags.salvage);
  co_await open_encryption(request);
  co_await open_data_file(request);
  if (!metadata_only_) {
    co_await read_tables();
    if (!for_check) co_await refuse_cut_file();
    if (!read_only() && !for_check && (header_.incompatible & kIncompatDirty))
      co_await repair_dirty();
  }
  if (!extensions_.backing_name.empty()) {
    NodePtr backing =
        co_await request.open_backing(extensions_.backing_name, extensions_.backing_format);
    if (backing) add_child("backing", std::move(backing), ChildRole::kBacking);
  } else {
    NodePtr backing = co_await request.open_backing({}, {});
    if (backing) add_child("backing", std::move(backing), ChildRole::kBacking);
  }
  if (!metadata_only_ && !external_) co_await detect_preallocation();
  // What only looks, or repairs, changes nothing that a bitmap records.
  const bool use_bitmaps = !metadata_only_ && !for_check;
  co_await load_bitmaps(use_bitmaps, request.flags.salvage);
  if (!read_only() && use_bitmaps) {
    co_await mark_bitmaps_in_use();
    bitmaps_loaded_ = true;
  }
  if (use_bitmaps) start_cleaner();
  end_opening();
}

// A repair that was interrupted is undone before anything else is believed. Version 2 has no mark
// that would show it.
Task<void> Qcow2Node::undo_interrupted_repair(bool for_check) {
  const bool marked =
      header_.version < 3 || (header_.incompatible & (kIncompatDirty | kIncompatCorrupt)) != 0;
  if (!marked && !for_check) co_return;
  if (!read_only()) {
    const bool undone = co_await RepairJournal::roll_back(*file_);
    if (undone) co_await read_header(for_check);
  } else if (for_check) {
    const std::string journal = RepairJournal::left_behind(*file_);
    if (!journal.empty())
      context().warn("A repair of the image was interrupted; the next one undoes it first (" +
                     journal + ")");
  }
}

Task<void> Qcow2Node::load_fresh(NodePtr data_file) {
  set_read_only(false);
  if (data_file) use_data_file(std::move(data_file));
  co_await read_header(false);
  configure({});
  co_await read_tables();
  bitmaps_loaded_ = true;
}

Task<void> Qcow2Node::read_header(bool tolerant) {
  std::vector<std::byte> head(4096);
  co_await file_->read(0, head);
  header_ = Header::decode(head);
  head.resize(header_.cluster_bytes());
  if (head.size() > 4096) co_await file_->read(4096, MutableByteSpan(head).subspan(4096));
  if (const uint64_t unknown = header_.incompatible & ~kIncompatKnown) {
    std::string table;
    try {
      table = Extensions::decode(header_, head).feature_table;
    } catch (const Error&) {
      // What cannot be read names nothing.
    }
    throw Error(ErrorKind::kUnsupported,
                "Unsupported qcow2 feature(s): " + describe_features(unknown, table));
  }
  header_.validate(file_->length(), tolerant);
  extensions_ = Extensions::decode(header_, head);
  if (header_.crypt_method == 2 && !extensions_.crypto)
    throw Error(ErrorKind::kInvalid, "Missing CRYPTO header for crypt method 2");
  set_length(header_.size);
  Limits& limits = mutable_limits();
  limits.cluster_bytes = cluster();
  limits.zero_alignment = cluster() / subclusters();
  limits.discard_alignment = cluster();
}

void Qcow2Node::configure(const Options& options) {
  const auto lazy = options.boolean("lazy-refcounts");
  if (lazy.value_or(false) && header_.version < 3)
    throw Error(ErrorKind::kInvalid,
                "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level");
  lazy_ = header_.version >= 3 && lazy.value_or((header_.compatible & kCompatLazyRefcounts) != 0);
  pass_discard_request_ = options.boolean("pass-discard-request").value_or(pass_discard_request_);
  pass_discard_snapshot_ = options.boolean("pass-discard-snapshot").value_or(true);
  pass_discard_other_ = options.boolean("pass-discard-other").value_or(false);
  discard_no_unref_ = options.boolean("discard-no-unref").value_or(false);
  if (discard_no_unref_ && header_.version < 3)
    throw Error(ErrorKind::kInvalid, "discard-no-unref is only supported since qcow2 version 3");

  overlap_parts_ = overlap_parts(options);
  options.mark_used("encrypt.key-secret");
  const uint64_t interval = options.number("cache-clean-interval").value_or(kDefaultCleanInterval);
  if (interval > UINT32_MAX) throw Error(ErrorKind::kInvalid, "Cache clean interval too big");
  clean_interval_ = std::chrono::seconds(interval);

  const auto total = options.size("cache-size");
  const auto l2 = options.size("l2-cache-size");
  const auto refcounts = options.size("refcount-cache-size");
  if (total && l2 && refcounts)
    throw Error(
        ErrorKind::kInvalid,
        "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time");
  if (total && l2 && *l2 > *total)
    throw Error(ErrorKind::kInvalid, "l2-cache-size may not exceed cache-size");
  if (total && refcounts && *refcounts > *total)
    throw Error(ErrorKind::kInvalid, "refcount-cache-size may not exceed cache-size");
  const uint64_t full =
      align_up(div_ceil(header_.size, cluster()) * header_.l2_entry_bytes(), cluster());
  const uint64_t few = std::max(kMinRefcountBlocks * cluster(), kRefcountCacheBytes);
  uint64_t l2_bytes = l2.value_or(kDefaultL2CacheBytes);
  uint64_t refcount_bytes = refcounts.value_or(few);
  if (total) {
    if (l2)
      refcount_bytes = *total - *l2;
    else if (refcounts)
      l2_bytes = *total - *refcounts;
    else if (*total >= full + few) {
      l2_bytes = full;
      refcount_bytes = *total - full;
    } else {
      refcount_bytes = std::min(*total, few);
      l2_bytes = *total - refcount_bytes;
    }
  }
  const uint64_t slice =
      options.size("l2-cache-entry-size")
          .value_or(l2_bytes >= full ? cluster() : std::min<uint64_t>(cluster(), 4096));
  if (!is_power_of_two(slice) || slice < 512 || slice > cluster())
    throw Error(
        ErrorKind::kInvalid,
        fmt::format(
            "L2 cache entry size must be a power of two between 512 and the cluster size ({})",
            cluster()));
  if (std::min(l2_bytes, full) / slice > INT32_MAX)
    throw Error(ErrorKind::kInvalid, "L2 cache size too big");
  if (refcount_bytes / cluster() > INT32_MAX)
    throw Error(ErrorKind::kInvalid, "Refcount cache size too big");
  slice_bytes_ = static_cast<uint32_t>(slice);
  l2_cache_bytes_ = std::min(l2_bytes, std::max(full, cluster()));
  refcount_cache_bytes_ = std::max(refcount_bytes, few);
}

Task<void> Qcow2Node::read_l1_table() {
  l1_count_ = header_.l1_entries;
  l1_ = std::make_unique<std::atomic<uint64_t>[]>(std::max<uint64_t>(l1_count_, 1));
  std::vector<std::byte> bytes(l1_count_ * 8);
  if (!bytes.empty()) co_await read_table(*file_, header_.l1_offset, bytes);
  for (uint64_t i = 0; i < l1_count_; ++i) l1_[i] = load_be<uint64_t>(bytes, i * 8);
}

Task<void> Qcow2Node::read_tables() {
  co_await read_l1_table();
  std::vector<std::byte> bytes(uint64_t{header_.refcount_table_clusters} * cluster());
  // Only what allocates needs it.
  const uint64_t needed = read_only() ? 0 : bytes.size();
  if (!bytes.empty()) co_await read_table(*file_, header_.refcount_table_offset, bytes, needed);
  refcount_table_.resize(bytes.size() / 8);
  for (size_t i = 0; i < refcount_table_.size(); ++i) {
    refcount_table_[i] = load_be<uint64_t>(bytes, i * 8) & ~uint64_t{0x1ff};
  }
  l2_ = std::make_unique<TableCache>(this, *file_, "l2", slice_bytes_,
                                     std::max<uint64_t>(2, l2_cache_bytes_ / slice_bytes_));
  refcounts_ =
      std::make_unique<TableCache>(this, *file_, "refcounts", static_cast<uint32_t>(cluster()),
                                   std::max(kMinRefcountBlocks, refcount_cache_bytes_ / cluster()));
  l2_->set_clean_interval(clean_interval_);
  refcounts_->set_clean_interval(clean_interval_);
  marks_.store(header_.incompatible & (kIncompatDirty | kIncompatCorrupt));
  if (read_only()) co_return;
  if (!lazy_) co_await l2_->write_after(*refcounts_);
  if (lazy_ || external_) l2_->set_before_write([this] { return before_tables(); });
  table_clusters_.clear();
  block_clusters_.clear();
  free_cursor_ = 0;
  for (uint64_t i = 0; i < l1_count_; ++i)
    if (const uint64_t table = l1_entry(i) & kOffsetMask) table_clusters_.insert(table / cluster());
  for (const uint64_t block : refcount_table_)
    if (block != 0) block_clusters_.insert(block / cluster());
  co_await note_inactive_tables();
  // Only what grows by itself is known to be zero past its end.
  virgin_ = file_->reads_zero_when_created() ? align_up(file_->length(), cluster()) : UINT64_MAX;
  const bool no_bitmaps = (header_.autoclear & kAutoclearBitmaps) != 0 && !extensions_.bitmaps;
  if ((header_.autoclear & ~kAutoclearKnown) || extensions_.stale_bitmaps || no_bitmaps) {
    header_.autoclear &= no_bitmaps ? kAutoclearRawData : kAutoclearKnown;
    extensions_.stale_bitmaps = false;
    co_await write_header();
  }
}

Task<void> Qcow2Node::read_snapshots() {
  if (header_.snapshot_count == 0) co_return;
  // A window on the table; an entry takes less than half of it.
  constexpr uint64_t kWindowBytes = 512 << 10;
  constexpr uint64_t kLongestEntry = 64 + kMaxSnapshotExtraBytes + 2 * 65536;
  const uint64_t end =
      std::min(file_->length(), header_.snapshots_offset + kMaxSnapshotTableBytes + kLongestEntry);
  std::vector<std::byte> window;
  uint64_t at = header_.snapshots_offset;
  uint64_t window_end = at;
  for (uint32_t i = 0; i < header_.snapshot_count; ++i) {
    const bool past = at >= end;
    if (past && context().profile.past_end == PastEnd::kRefuse)
      throw Error(ErrorKind::kInvalid,
                  fmt::format("Snapshot table offset invalid: entry {} is outside the file", i));
    if (window_end < end && window_end - at < kLongestEntry) {
      window.resize(std::min(kWindowBytes, end - at));
      co_await file_->read(at, window);
      window_end = at + window.size();
    }
    if (past) {
      window.assign(64, std::byte{0});
      window_end = at + window.size();
    }
    SnapshotEntry entry =
        SnapshotEntry::decode(ByteSpan(window).last(window_end - at), i, header_.size);
    at += entry.encoded_bytes;
    if (at - header_.snapshots_offset > kMaxSnapshotTableBytes)
      throw Error(ErrorKind::kTooLarge, "Snapshot table is too big")
          .hint(fmt::format(
              "You can force-remove all {} overhanging snapshots with qemu-img check -r all",
              header_.snapshot_count - i));
    // The last entry's padding may be missing.
    if (at > window_end) window_end = at;
    snapshots_.push_back(std::move(entry));
  }
}

Task<void> Qcow2Node::write_header() {
  Header header = header_;
  header.incompatible = incompatible_now();
  const std::vector<std::byte> bytes = encode_first_cluster(header, extensions_);
  header_.backing_offset = header.backing_offset;
  header_.backing_length = header.backing_length;
  co_await file_->write(0, bytes);
  co_await file_->flush();
}

Task<void> Qcow2Node::write_header_field(uint64_t offset, ByteSpan bytes) {
  co_await file_->write(offset, bytes);
  co_await file_->flush();
}

// A file with far fewer blocks than clusters has its metadata preallocated, or holes inside of its
// clusters: what is mapped need not be stored. The bounds are those that show in QEMU's `map`.
Task<void> Qcow2Node::detect_preallocation() {
  const auto allocated = co_await allocated_bytes_of(*file_);
  if (!allocated) co_return;
  const uint64_t stored = *allocated / cluster();
  preallocated_ = div_ceil(file_->length(), cluster()) >= std::max(stored * 10 / 9, stored + 2);
}

// --- what tools ask ---

Value Qcow2Node::specific_info() const {
  Value data = Value::object();
  const bool v3 = header_.version >= 3;
  data.set("compat", v3 ? "1.1" : "0.10");
  data.set("compression-type", header_.compression_type == 1 ? "zstd" : "zlib");
  data.set("refcount-bits", uint64_t{header_.refcount_bits()});
  if (v3) {
    data.set("lazy-refcounts", (header_.compatible & kCompatLazyRefcounts) != 0);
    data.set("corrupt", (header_.incompatible & kIncompatCorrupt) != 0);
    data.set("extended-l2", header_.extended_l2());
    if (header_.incompatible & kIncompatDataFile) {
      if (!extensions_.data_file.empty()) data.set("data-file", extensions_.data_file);
      data.set("data-file-raw", (header_.autoclear & kAutoclearRawData) != 0);
    }
  }
  if (!bitmaps_.empty()) {
    Value list = Value::array();
    for (const BitmapEntry& bitmap : bitmaps_) {
      Value flags = Value::array();
      if (bitmap.flags & BitmapEntry::kInUse) flags.push_back("in-use");
      if (bitmap.flags & BitmapEntry::kAuto) flags.push_back("auto");
      Value entry = Value::object();
      entry.set("flags", std::move(flags));
      entry.set("name", bitmap.name);
      entry.set("granularity", uint64_t{1} << bitmap.granularity_bits);
      list.push_back(std::move(entry));
    }
    data.set("bitmaps", std::move(list));
  }
  if (header_.crypt_method != 0) {
    data.set("encrypt", encryption_info());
  }
  return data;
}

Value Qcow2Node::snapshots_info() const {
  if (snapshots_.empty() || (header_.incompatible & kIncompatDataFile)) return {};
  Value list = Value::array();
  for (const SnapshotEntry& snapshot : snapshots_) {
    Value entry = Value::object();
    if (snapshot.icount) entry.set("icount", *snapshot.icount);
    entry.set("vm-clock-nsec", snapshot.vm_clock % 1000000000);
    entry.set("name", snapshot.name);
    entry.set("date-sec", uint64_t{snapshot.date_seconds});
    entry.set("date-nsec", uint64_t{snapshot.date_nanoseconds});
    entry.set("vm-clock-sec", snapshot.vm_clock / 1000000000);
    entry.set("id", snapshot.id);
    entry.set("vm-state-size", snapshot.vm_state_bytes);
    list.push_back(std::move(entry));
  }
  return list;
}

std::optional<bool> Qcow2Node::dirty_flag() const {
  return (header_.incompatible & kIncompatDirty) != 0;
}

bool Qcow2Node::reads_zero_when_created() const {
  if (backing() != nullptr) return false;
  // Without tables there is nothing; with preallocated ones there is what the file has.
  if (l1_count_ == 0 || (l1_entry(0) & kOffsetMask) == 0) return true;
  return header_.crypt_method == 0 && data_->reads_zero_when_created();
}

}  // namespace cairn
