#pragma once

#include "cli/session.h"

namespace cairn::cli {

// One function for each verb, in the file of its name.
Verb amend_verb();
Verb backup_verb();
Verb bench_verb();
Verb bitmap_verb();
Verb check_verb();
Verb commit_verb();
Verb compact_verb();
Verb compare_verb();
Verb completion_verb();
Verb convert_verb();
Verb create_verb();
Verb dd_verb();
Verb formats_verb();
Verb hash_verb();
Verb info_verb();
Verb map_verb();
Verb measure_verb();
Verb mount_verb();
Verb nvme_verb();
Verb rebase_verb();
Verb resize_verb();
Verb restore_verb();
Verb snapshot_verb();
Verb umount_verb();
// Of systems on which these are not there.
Verb ctl_verb();
Verb daemon_verb();

// `bitmap --list`.
int list_bitmaps(Session& session, Arguments& arguments);
// `backup --list`, `--verify`, `--prune`.
int list_backups(Session& session, Arguments& arguments);
int verify_backups(Session& session, Arguments& arguments);
int prune_backups(Session& session, Arguments& arguments);

// Long-only options of single verbs.
enum OwnId : int {
  kTargetImageOpts = kFirstOwn,
  kTargetIsZero,
  kSalvage,
  kBitmaps,
  kSkipBrokenBitmaps,
  kPreallocation,
  kShrink,
  kFlushInterval,
  kNoDrain,
  kPattern,
  kSize,
  kWorkers,
  kHash,
  kFor,
  kVerify,
  kResume,
  kAllSnapshots,
  kAlgorithm,
  kForce,
  kAdd,
  kRemove,
  kClear,
  kEnable,
  kDisable,
  kMerge,
  kOverlay,
  kList,
  kTimeout,
  kControlSocket,
  kAt,
  kDaemon,
  kFull,
  kKeep,
  kNoBitmap,
  kNoChecksum,
  kNode,
  kPrune,
  kPull,
  kNbdAddress,
  kScratch,
  kTlsCreds,
};

}  // namespace cairn::cli
