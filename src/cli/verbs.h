#pragma once

#include "cli/session.h"

namespace cairn::cli {

int run_amend(Session& session, Arguments& arguments);
int run_info(Session& session, Arguments& arguments);
int run_create(Session& session, Arguments& arguments);
int run_convert(Session& session, Arguments& arguments);
int run_compare(Session& session, Arguments& arguments);
int run_map(Session& session, Arguments& arguments);
int run_check(Session& session, Arguments& arguments);
int run_resize(Session& session, Arguments& arguments);
int run_measure(Session& session, Arguments& arguments);
int run_commit(Session& session, Arguments& arguments);
int run_rebase(Session& session, Arguments& arguments);
int run_dd(Session& session, Arguments& arguments);
int run_snapshot(Session& session, Arguments& arguments);
int run_hash(Session& session, Arguments& arguments);
int run_compact(Session& session, Arguments& arguments);
int run_formats(Session& session, Arguments& arguments);
int run_bitmap(Session& session, Arguments& arguments);
// `bitmap --list`.
int list_bitmaps(Session& session, Arguments& arguments);
int run_bench(Session& session, Arguments& arguments);
// `mount`, with its options.
Verb mount_verb();
Verb umount_verb();

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
  kOverwrite,
};

}  // namespace cairn::cli
