#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "async/sync.h"
#include "async/task.h"
#include "block/dirty_bitmap.h"
#include "block/node.h"
#include "block/write_watch.h"
#include "job/live/copy_engine.h"

namespace cairn::live {

// Offset and length, one pair after the other.
using Runs = std::vector<std::pair<uint64_t, uint64_t>>;

// Runs of what is dirty in BITMAP.
Runs dirty_runs(const DirtyBitmap& bitmap);

// Keeps what jobs have still to copy where it survives the end of the process, by the IDs of the
// jobs. From any worker; throws nothing: a store that cannot be written says so itself, and makes
// sure that what it had is not believed any more. False where it cannot even do that.
class ProgressStore {
 public:
  virtual ~ProgressStore() = default;
  // RUNS have to be copied again (OPEN), or are copied and stable in the target. On stable storage
  // when it returns.
  virtual Task<bool> record(std::string id, bool open, Runs runs) = 0;
  // True where jobs end because the process does, and nobody writes to their disks any more: what
  // is left of them then is to be continued.
  virtual bool suspends() const = 0;
  // Nobody is to continue the job, unless suspends(). SWITCHED: the users of the disk get to use
  // the target.
  virtual Task<bool> end(std::string id, bool switched) = 0;
};
using ProgressStorePtr = std::shared_ptr<ProgressStore>;

// What a later process would have to copy of a job if this one ended now without a word. Methods
// are for any worker unless they say something else.
class JobProgress {
 public:
  virtual ~JobProgress() = default;
  // False until the job has found out what there is to copy: it would begin from the start.
  bool known() const { return known_.load(); }
  void set_known() { known_.store(true); }
  // A copy of what is open: all that is not stable in the target, and maybe more.
  std::shared_ptr<DirtyBitmap> open() const;
  // What was copied becomes stable, and is not open any more. With the lock of the graph held.
  // Throws what flushing throws.
  virtual Task<void> settle() = 0;
  // Before the job lets its users do what it cannot see. False: ProgressStore::end(). Once or more.
  Task<bool> end(bool switched);

 protected:
  JobProgress(ProgressStorePtr store, std::string id, uint64_t length, uint64_t granularity,
              const DirtyBitmap* remaining);
  bool ended() const { return ended_.load(); }  // or ends at this moment
  bool forgotten() const { return forgotten_.load(); }

  const ProgressStorePtr store_;
  const std::string id_;
  const std::shared_ptr<DirtyBitmap> open_;

 private:
  std::atomic<bool> known_{false};
  std::atomic<bool> ended_{false};
  std::atomic<bool> forgotten_{false};  // the store knows that it has ended
};

// That of a mirror, in regions: before a region becomes unequal, the store knows; some time after
// it is equal again, the store gets to know that as well.
class MirrorProgress final : public JobProgress, public WriteWatch, public CopyWatch {
 public:
  // DIRTY marks what is to be copied. REMAINING null: everything.
  MirrorProgress(ProgressStorePtr store, std::string id, NodePtr source, NodePtr target,
                 DirtyBitmapPtr dirty, const DirtyBitmap* remaining);
  Task<void> before(uint64_t offset, uint64_t length) override;
  void after(uint64_t offset, uint64_t length) override;
  void taken(uint64_t offset, uint64_t length) override;
  void dropped(uint64_t offset, uint64_t length) override;
  Task<void> settle() override;

 private:
  struct Region {
    uint32_t under_way = 0;  // requests that change it, and pieces that are being copied
    bool open = true;        // in memory, and so in what is stored as a whole
    bool stored = true;      // the store has it as open
    bool touched = false;    // since settle() began
  };
  template <class Change>
  void each(uint64_t offset, uint64_t length, Change change);
  Task<void> store_open(uint64_t offset, uint64_t length);

  const NodePtr source_;
  const NodePtr target_;
  const DirtyBitmapPtr dirty_;
  std::mutex mutex_;
  std::vector<Region> regions_;
  std::vector<size_t> unstored_;  // regions that the store has to get
  Mutex storing_;
};

// That of a backup, in its clusters: before a cluster that was copied is overwritten, the store
// knows that it is copied, because the source has it no longer.
class BackupProgress final : public JobProgress {
 public:
  // LEFT marks what is not in the target, and only loses marks.
  BackupProgress(ProgressStorePtr store, std::string id, NodePtr target, DirtyBitmapPtr left);
  // The clusters of the range are in the target: they are stable there, and the store knows, when
  // it returns. Throws what flushing the target throws.
  Task<void> keep(uint64_t offset, uint64_t length);
  Task<void> settle() override;

 private:
  bool is_kept(uint64_t offset, uint64_t length) const;
  Task<void> keep_all(Runs runs);

  const NodePtr target_;
  const DirtyBitmapPtr left_;
  const std::shared_ptr<DirtyBitmap> unkept_;  // what the store does not have as copied
  std::mutex mutex_;
  Runs asked_;  // what keep() is to store next
  Mutex storing_;
};

// Bytes that are one bit of the progress of a mirror of so many bytes.
uint64_t mirror_region_bytes(uint64_t length);
// The least cluster of a backup whose progress is kept.
uint64_t kept_backup_cluster(uint64_t length);

}  // namespace cairn::live
