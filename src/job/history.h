#pragma once

#include <functional>
#include <vector>

#include "block/snapshot.h"
#include "job/convert.h"

namespace cairn {

// Copies a disk together with the internal snapshots of its image: the target becomes what the
// source was at the first one and is given that snapshot, then the differences to the next one are
// written, and so on to the disk as it is now. So the target's snapshots share what the source's
// share.
class CopyHistory {
 public:
  // SOURCE and EARLIER are one image, opened twice to be read; both show the present when this has
  // ended well. EARLIER may be null when there are no snapshots. The target was just made.
  CopyHistory(Context& context, NodePtr source, NodePtr earlier, NodePtr target,
              ConvertOptions options, const CancelSource& cancel);

  // Called from any worker with bytes dealt with and bytes altogether.
  std::function<void(uint64_t done, uint64_t total)> progress;

  // Throws the first error; the target is then incomplete. No node is closed.
  Task<void> run();

 private:
  Task<void> make_state(size_t number);
  Task<void> copy_machine(const SnapshotRecord& snapshot);
  void spend(uint64_t bytes);

  Context& context_;
  NodePtr source_;
  NodePtr earlier_;
  NodePtr target_;
  ConvertOptions options_;
  const CancelSource& cancel_;
  std::vector<SnapshotRecord> snapshots_;
  uint64_t done_ = 0;
  uint64_t total_ = 0;
  uint64_t written_ = 0;
};

}  // namespace cairn
