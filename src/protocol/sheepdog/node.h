#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "async/sync.h"
#include "block/capabilities/image_info.h"
#include "block/capabilities/snapshot_store.h"
#include "block/capabilities/storage_use.h"
#include "block/node.h"
#include "protocol/sheepdog/cluster.h"
#include "protocol/sheepdog/location.h"
#include "protocol/sheepdog/vdi.h"

namespace cairn::sheepdog {

// A VDI as a disk.
//
// Order of writes: a new object is created before the index names it, by a message that has the
// whole first write, since a second creation would replace the object. So what writes to an
// object that the VDI has not itself holds it exclusively until its entry is written; all others
// share it. What was made a snapshot by somebody else is read-only to the cluster: the node then
// continues with the new working VDI.
class SheepdogNode : public Node,
                     public ImageInfo,
                     public StorageUse,
                     public SnapshotView,
                     public SnapshotStore {
 public:
  using Capabilities = CapabilityList<ImageInfo, StorageUse, SnapshotView, SnapshotStore>;

  SheepdogNode(Context& context, const Driver& driver, Target target, VdiName name, bool writable,
               std::string filename);
  ~SheepdogNode() override;

  // Connects, locks what is to be written, and reads the index. Throws; close() is to be awaited
  // also then.
  Task<void> connect();

  std::optional<bool> dirty_flag() const override { return std::nullopt; }
  Task<std::optional<uint64_t>> allocated_bytes() override;
  bool reads_zero_when_created() const override { return true; }

  Value snapshots_info() const override;
  Task<void> learn_snapshots() override;
  Task<void> show_snapshot(std::string id, std::string name) override;
  Task<void> create_snapshot(std::string name) override;
  Task<void> apply_snapshot(std::string which) override;
  Task<void> delete_snapshot(std::string name) override;
  std::vector<SnapshotRecord> snapshots() const override;
  Task<void> show_state(std::optional<size_t> which) override;
  Task<void> record_snapshot(SnapshotRecord record) override;

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override;
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override;
  Task<void> do_discard(uint64_t offset, uint64_t length) override;
  Task<void> do_flush() override;
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override;
  Task<void> do_resize(ResizeRequest request) override;
  Task<void> do_close() override;

 private:
  // A part of a request that is in one object.
  struct Piece {
    uint64_t number = 0;  // of the object
    uint32_t offset = 0;  // in it
    uint64_t length = 0;
  };
  Piece piece_at(uint64_t offset, uint64_t length) const;
  uint64_t object_bytes() const { return uint64_t{1} << shift_; }
  // The entry of an object in the index; may be read and set by several workers.
  void check_entry(uint64_t number) const;
  uint32_t entry(uint64_t number);
  void set_entry(uint64_t number, uint32_t vdi);

  Task<Result> read_object(Piece piece, MutableByteSpan out, uint32_t* used);
  Task<Result> write_object(Piece piece, ByteSpan in, uint32_t* used);
  Task<Result> write_held(Piece piece, ByteSpan in, uint32_t has);
  Task<void> write_piece(Piece piece, ByteSpan in);
  Task<bool> holds(uint64_t number);
  Task<void> write_zero_bytes(Piece piece);
  Task<bool> is_current();
  Task<void> unmap(uint64_t first, uint64_t count);
  Task<bool> unmap_held(uint64_t first, uint64_t count, uint32_t* used);
  Task<void> grow(uint64_t length);
  Task<void> grow_held(uint64_t length);

  // With state_ held exclusively:
  Task<void> load(uint32_t vdi);
  Task<void> move_lock(uint32_t from);
  Task<void> follow();
  // Takes it. USED is the VDI that a request found to be outdated.
  Task<void> reload(uint32_t used);
  Task<uint32_t> find_snapshot(std::string which, bool number_first);

  Cluster cluster_;
  const VdiName name_;
  const bool writable_;
  bool locked_ = false;
  unsigned shift_ = 0;  // of the size of an object
  std::atomic<bool> can_flush_{true};
  bool shows_other_ = false;  // than what was opened: a snapshot
  RwLock state_;              // exclusively: inode_ and the size of index_ change
  RangeLock objects_;         // by number
  Inode inode_;
  std::vector<uint32_t> index_;
  std::vector<Inode> list_;  // of snapshots
  std::chrono::steady_clock::time_point listed_at_{};
};

}  // namespace cairn::sheepdog
