#pragma once

#include <map>
#include <span>
#include <vector>

#include "base/buffer.h"
#include "format/qcow2/node.h"

namespace cairn {

// One step from an image's state to another one with other snapshots or another active table.
//
// Everything that changes (refcount table and blocks, L1 tables, L2 tables whose COPIED flags
// differ, the snapshot table) is written to an area that the old state does not count. The fields
// of the header that name the roots and the disk's size are in one sector; one write of it
// switches. A crash before leaves the old state as it was, one after it the new state: exact
// counters and flags, no leak.
//
// What was moved is then copied to where it was before, and what is new to the first free clusters;
// a second write of the header switches to that and the area is free again. The layout is QEMU's in
// the end, and images do not grow by their tables with every snapshot.
//
// Every range is locked while one of these lives, and the allocator from begin() on. Dropped
// before finish(), it leaves the image as it was.
class SnapshotSwitch {
 public:
  explicit SnapshotSwitch(Qcow2Node& node) : node_(node) {}
  ~SnapshotSwitch();
  SnapshotSwitch(const SnapshotSwitch&) = delete;
  SnapshotSwitch& operator=(const SnapshotSwitch&) = delete;

  // Flushes, and finds an area for the counters, L1_TABLES of L1_ENTRIES each, as many L2 tables
  // as ACTIVE refers to, and a table of SNAPSHOTS.
  Task<void> begin(std::span<const uint64_t> active, uint64_t l1_tables, uint64_t l1_entries,
                   const std::vector<qcow2::SnapshotEntry>& snapshots);
  // Makes ACTIVE the tables of a snapshot as well: what it reaches is counted once more and loses
  // its COPIED flags.
  Task<void> share(std::vector<uint64_t>& active);
  // Raises or lowers the counters of what TABLES reaches.
  Task<void> count(std::span<const uint64_t> tables, int delta);
  Task<void> count_clusters(uint64_t offset, uint64_t clusters, int delta);
  // Sets the COPIED flags of ACTIVE as the counters are by now.
  Task<void> renew_copied(std::vector<uint64_t>& active);
  // Writes an L1 table and says where.
  Task<uint64_t> write_l1(std::span<const uint64_t> entries);
  // Switches to the new active table, list of snapshots and disk size.
  Task<void> finish(const std::vector<uint64_t>& active,
                    std::vector<qcow2::SnapshotEntry> snapshots, uint64_t disk_bytes);

 private:
  // Where the header finds everything else.
  struct Roots {
    uint64_t disk_bytes = 0;
    uint64_t l1_entries = 0;
    uint64_t l1_place = 0;
    uint64_t table_place = 0;
    uint64_t table_clusters = 0;
    uint64_t list_place = 0;
  };
  // A table's place before and in the area.
  struct Move {
    uint64_t before = 0;
    uint64_t now = 0;
  };
  // Clusters in a row, and which entry of the table names the first.
  struct Piece {
    uint64_t first = 0;
    uint64_t count = 0;
    size_t entry = 0;
  };
  Task<uint64_t> take(uint64_t clusters);
  Task<void> copy_blocks();
  Task<void> load(uint64_t table);
  std::vector<Piece> pieces(bool compressed_too) const;
  Task<void> find_ones(std::vector<uint8_t>& ones);
  Task<uint64_t> store_copy(uint64_t before);
  Task<void> write_pending();
  Task<void> reserve(uint64_t l1_clusters, uint64_t list_clusters);
  Task<void> write_roots(Roots roots, size_t snapshots);
  void adopt(Roots roots, const std::vector<uint64_t>& active,
             std::vector<qcow2::SnapshotEntry> snapshots);
  // snapshot_settle.cc
  Task<void> settle();
  Task<bool> place_back(Roots& roots, std::vector<uint64_t>& active,
                        std::vector<qcow2::SnapshotEntry>& snapshots);
  Task<bool> place_list(Roots& roots, const std::vector<qcow2::SnapshotEntry>& snapshots);
  Task<bool> may_go_back(uint64_t before, uint64_t now, uint64_t clusters);
  bool keep(uint64_t place, uint64_t clusters);
  Task<void> write_blocks_back();
  Task<void> write_entries(uint64_t place, std::span<const uint64_t> entries);
  uint64_t settled_place(uint64_t entry) const;
  Task<void> cut_area();

  Qcow2Node& node_;
  Mutex::Guard guard_;
  bool begun_ = false;
  bool done_ = false;
  std::vector<uint64_t> old_table_;
  Roots old_;
  std::vector<Move> moved_;  // L2 tables
  bool may_settle_ = false;
  bool list_stays_ = false;
  uint64_t l1_reserved_ = 0;                // for the new snapshot's L1 table, 0: there is none
  uint64_t list_reserved_ = 0;              // for the list, 0: it is empty
  std::map<uint64_t, uint64_t> recounted_;  // counters that change when the image is settled
  uint64_t kept_end_ = 0;                   // of what stays in the area then
  uint64_t file_bytes_ = 0;                 // before
  std::vector<Qcow2Node::Run> given_up_;    // clusters whose counters became zero
  uint64_t area_ = 0;                       // in clusters
  uint64_t next_ = 0;
  uint64_t end_ = 0;
  uint64_t table_place_ = 0;
  AlignedBuffer table_;    // the L2 table at hand
  AlignedBuffer pending_;  // L2 tables in a row that wait to be written
  uint64_t pending_place_ = 0;
  size_t pending_bytes_ = 0;
};

}  // namespace cairn
