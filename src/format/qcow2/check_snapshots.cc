#include <fmt/core.h>

#include "base/arith.h"
#include "format/qcow2/check.h"

namespace cairn {

using namespace qcow2;

// The snapshot table, read as it is. What an opening refuses is cut by `-r all`: snapshots beyond
// the limits, too much extra data. Entries that lack what version 3 asks for are completed.

namespace {
constexpr uint64_t kHeadBytes = 40;
constexpr uint64_t kExtraOfVersion3 = 16;
}  // namespace

Task<void> Qcow2Checker::read_snapshots() {
  snapshots_.clear();
  snapshot_bytes_ = 0;
  uint64_t count = header_.snapshot_count;
  const auto refuse = [this](const std::string& line, const std::string& hint) {
    if (request_.complain) request_.complain(line);
    if (request_.report) request_.report(hint);
    ++result_.check_errors;
    throw Error::system(EFBIG);
  };
  if (count > kMaxSnapshots) {
    snapshots_dropped_ = count - kMaxSnapshots;
    const std::string number = std::to_string(snapshots_dropped_);
    if (!fixes_all())
      refuse("ERROR snapshot table too large", "You can force-remove all " + number +
                                                   " overhanging snapshots with qemu-img check -r "
                                                   "all");
    if (request_.report) request_.report("Discarding " + number + " overhanging snapshots");
    result_.corruptions += snapshots_dropped_;
    count = kMaxSnapshots;
  }
  uint64_t at = header_.snapshots_offset;
  uint64_t kept_bytes = 0;  // of the table without the extra data that is dropped
  for (uint64_t i = 0; i < count; ++i) {
    std::byte head[kHeadBytes];
    co_await node_.file_->read(at, head);
    const uint64_t extra = load_be<uint32_t>(head, 36);
    const uint64_t names = uint64_t{load_be<uint16_t>(head, 12)} + load_be<uint16_t>(head, 14);
    if (extra > kMaxSnapshotExtraBytes) {
      const std::string number = std::to_string(i);
      if (!fixes_all())
        refuse(
            "ERROR failed to read the snapshot table: Too much extra metadata in snapshot table "
            "entry " +
                number,
            "You can force-remove this extra metadata with qemu-img check -r all");
      if (request_.report)
        request_.report(
            fmt::format("Discarding too much extra metadata in snapshot table entry {} ({} > 1024)",
                        number, extra));
      ++snapshots_incomplete_;
    }
    // The entry without the extra data that nobody keeps.
    const uint64_t kept = std::min<uint64_t>(extra, kMaxSnapshotExtraBytes);
    std::vector<std::byte> bytes(kHeadBytes + kept + names);
    co_await node_.file_->read(at, MutableByteSpan(bytes).first(kHeadBytes + kept));
    store_be<uint32_t>(bytes, 36, static_cast<uint32_t>(kept));
    if (names != 0)
      co_await node_.file_->read(at + kHeadBytes + extra,
                                 MutableByteSpan(bytes).subspan(kHeadBytes + kept));
    SnapshotEntry entry = SnapshotEntry::decode(bytes, i, header_.size);
    entry.encoded_bytes = align_up(kHeadBytes + extra + names, 8);
    if (header_.version >= 3 && extra < kExtraOfVersion3) {
      told_.line("%s snapshot table entry %llu is incomplete", fixes_all() ? "Repairing" : "ERROR",
                 ull(i));
      ++snapshots_incomplete_;
    }
    at += entry.encoded_bytes;
    kept_bytes += align_up(kHeadBytes + kept + names, 8);
    if (kept_bytes > kMaxSnapshotTableBytes) {
      snapshots_dropped_ += count - i;
      const std::string number = std::to_string(count - i);
      if (!fixes_all())
        refuse("ERROR failed to read the snapshot table: Snapshot table is too big",
               "You can force-remove all " + number +
                   " overhanging snapshots with qemu-img check -r all");
      if (request_.report)
        request_.report("Discarding " + number +
                        " overhanging snapshots (snapshot table is too big)");
      result_.corruptions += count - i;
      break;
    }
    snapshot_bytes_ = at - header_.snapshots_offset;
    snapshots_.push_back(std::move(entry));
  }
  result_.corruptions += snapshots_incomplete_;
  snapshots_wrong_ = snapshots_incomplete_ + snapshots_dropped_;
  node_.snapshots_ = snapshots_;
  tell(told_);
}

// A new table in place of the one that was incomplete. Written as snapshots are: after everything
// that it relies on, and switched to in one write of the header.
Task<void> Qcow2Checker::fix_snapshots() {
  if (snapshots_wrong_ == 0 || !fixes_all()) co_return;
  co_await commit();
  if (snapshots_incomplete_ == 0) {
    // The first ones are as they should be: the table ends after them.
    std::byte field[4];
    store_be<uint32_t>(field, 0, static_cast<uint32_t>(snapshots_.size()));
    co_await node_.write_header_field(60, field);
    node_.header_.snapshot_count = static_cast<uint32_t>(snapshots_.size());
  } else {
    co_await node_.read_tables();
    co_await node_.store_snapshots(snapshots_);
    co_await node_.flush_mapped();
  }
  result_.corruptions -= snapshots_wrong_;
  result_.corruptions_fixed += snapshots_wrong_;
}

}  // namespace cairn
