#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "protocol/vvfat/host_folder.h"
#include "protocol/vvfat/tree.h"

namespace cairn::vvfat {

constexpr uint32_t kNoEntry = UINT32_MAX;

// What a guest has done to a directory: which entry was which one before.
struct Changes {
  std::vector<uint32_t> old_of;  // by entry of the new tree; kNoEntry: it was made
  std::vector<uint32_t> now_of;  // by entry of the old tree; kNoEntry: it is gone
  std::vector<bool> content;     // by entry of the new tree: the bytes must be written
  bool any = false;

  bool is_new(uint32_t now) const { return old_of[now] == kNoEntry; }
  bool is_gone(uint32_t old) const { return now_of[old] == kNoEntry; }
};

// Compares OLD, the directory as host and guest had it in common, with NOW as read_guest() gives
// it. Something is the same when it has its name and its first cluster still; else by the first
// cluster (it was renamed or moved), else by its name (it was replaced). WRITTEN says whether the
// guest has written to a cluster since. What the host knows of an entry (name, stamp, kind, …) goes
// over into NOW.
Changes compare(const Tree& old, Tree& now, const std::function<bool(uint32_t)>& written);

// Whether the guest gave the file, which is NOW and was OLD, another time of change.
bool was_touched(const Entry& old, const Entry& now);

// Throws kDenied, naming the file, for what is never done: a name that no file may have, a
// change of what is write-protected, special, reached through a link, or on another file system.
void refuse_what_may_not_be(const HostFolder& folder, const Tree& old, const Tree& now,
                            const Changes& changes);

}  // namespace cairn::vvfat
