#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "block/dirty_bitmap.h"
#include "job/live/disk_job.h"
#include "job/live/layers.h"

namespace cairn::live {

enum class MirrorSync : uint8_t {
  kFull,  // what the whole chain shows
  kTop,   // what the source's own layer holds
  kNone,  // only what is written from now on
};

struct MirrorRequest {
  NodePtr source;
  NodePtr target;
  NodePtr replaces;  // whose users use the target in the end; null: the source's
  MirrorSync sync = MirrorSync::kFull;
  uint64_t granularity = 0;   // bytes; 0: from the target
  uint64_t buffer_bytes = 0;  // that are copied at a time; 0: 16 MiB
  bool unmap = true;          // what is zero need not take space in the target
  bool write_blocking = false;
  // What an earlier run of the job had left to copy, of a disk that nobody has written since; null:
  // all that SYNC says.
  DirtyBitmapPtr remaining = {};
  ProgressStorePtr store = {};        // keeps what is left; null: nobody does
  bool target_was_read_only = false;  // and is to be again where nobody gets to use it
  std::string filter_name;            // empty: one is made
  OnError on_source_error = OnError::kReport;
  OnError on_target_error = OnError::kReport;
};

// Sees what the users of the source write, and in the active mode writes it to the target as well.
class MirrorFilter;

// Makes a target equal to a disk and keeps it so until complete(): then those who use the disk use
// the target. As JobType::kCommit the target is a base of the disk's own chain, and what the layers
// above it store is copied.
class MirrorJob final : public DiskJob, private CopyMethod {
 public:
  MirrorJob(JobType type, JobOptions options, Graph& graph, MirrorRequest request);
  // From now on what is written to the source is written to the target first.
  bool write_blocking() const;
  DirtyBitmapPtr remaining() const override;
  std::shared_ptr<JobProgress> progress() const override { return progress_; }
  void set_write_blocking();  // throws kInvalid where the state refuses it

 protected:
  Task<void> set_up() override;
  Task<void> run() override;
  Task<void> prepare() override;
  Task<void> tear_down() override;
  bool can_complete() const override { return true; }
  void refresh_progress() override;
  std::optional<bool> actively_synced() const override;

 private:
  friend class MirrorFilter;
  Task<CopyPiece> look(uint64_t offset, uint64_t max) override;
  Task<void> copy(CopyPiece piece, MutableByteSpan buffer, JobSide* side) override;
  Task<void> find_wanted();
  Task<void> switch_over();
  void keep_progress();
  Task<void> lend_backing();

  const MirrorRequest request_;
  const uint64_t unit_;
  DirtyBitmapPtr dirty_;
  std::shared_ptr<MirrorProgress> progress_;  // null: nobody keeps it
  std::unique_ptr<CopyEngine> engine_;
  std::atomic<bool> counting_{false};  // the engine is there
  std::shared_ptr<MirrorFilter> mirror_filter_;
  std::atomic<bool> ready_{false};
  bool frozen_ = false;
  bool switched_ = false;
  bool lent_ = false;    // the target has the backing file of the source, until somebody uses it
  unsigned layers_ = 0;  // of the source that a commit copies
};

}  // namespace cairn::live
