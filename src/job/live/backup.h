#pragma once

#include <memory>
#include <optional>
#include <string>

#include "block/dirty_bitmap.h"
#include "job/live/disk_job.h"
#include "job/live/layers.h"

namespace cairn::live {

enum class BackupSync : uint8_t {
  kFull,    // what the whole chain shows
  kTop,     // what the source's own layer holds
  kNone,    // what is overwritten from now on; does not end by itself
  kBitmap,  // what a bitmap marks
};

// What the bitmap marks when the job has ended, besides what was written since it began.
enum class BitmapMode : uint8_t {
  kOnSuccess,  // nothing, or all as before where the job failed
  kNever,      // all as before
  kAlways,     // what was not copied
};

struct BackupRequest {
  NodePtr source;
  NodePtr target;
  BackupSync sync = BackupSync::kFull;
  DirtyBitmapPtr bitmap;  // of the source; null: none
  BitmapMode bitmap_mode = BitmapMode::kOnSuccess;
  bool compress = false;
  bool discard_source = false;  // what was copied is discarded in the source
  // What an earlier run of the job had left to copy of its moment, of a disk that nobody has
  // written since; null: all that SYNC says.
  DirtyBitmapPtr remaining = {};
  // With REMAINING: what was written since that earlier run began, for BITMAP.
  DirtyBitmapPtr written_since = {};
  ProgressStorePtr store = {};  // keeps what is left; null: nobody
  uint64_t least_cluster = 0;   // bytes, a power of two; 0: none
  uint64_t most_chunk = 0;      // bytes of a piece; 0: no limit of its own
  unsigned workers = 64;        // requests at a time, at most
  std::string filter_name;      // empty: one is made
  OnError on_source_error = OnError::kReport;
  OnError on_target_error = OnError::kReport;
};

class BackupFilter;

// Copies a disk as it is when the job begins: what its users overwrite meanwhile is copied first.
class BackupJob final : public DiskJob {
 public:
  // Of a request that was checked.
  BackupJob(JobOptions options, Graph& graph, BackupRequest request);
  // Bytes that are copied as a whole.
  static uint64_t cluster_of(const BackupRequest& request);
  // Throws kInvalid where the request makes no sense.
  static void check(const BackupRequest& request);
  DirtyBitmapPtr remaining() const override;
  DirtyBitmapPtr written_since() const override { return successor_; }
  std::shared_ptr<JobProgress> progress() const override { return progress_; }

 protected:
  Task<void> set_up() override;
  Task<void> run() override;
  Task<void> commit() override;
  Task<void> abort() override;
  Task<void> tear_down() override;

 private:
  Task<void> begin_moment();
  Task<void> leave_out_lower_layers();
  void settle_bitmap(bool success);

  const BackupRequest request_;
  const uint64_t cluster_;
  std::shared_ptr<BackupFilter> backup_filter_;
  std::shared_ptr<BackupProgress> progress_;  // null: nobody keeps it
  DirtyBitmapPtr wanted_;                     // what the job still has to visit
  DirtyBitmapPtr successor_;                  // what is written meanwhile, where there is a bitmap
  bool settled_ = false;
};

}  // namespace cairn::live
