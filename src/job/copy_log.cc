#include "job/copy_log.h"

#include <algorithm>

#include "base/arith.h"

namespace cairn {

Task<void> zero_unfinished(Node& target, UnfinishedCopy copy) {
  const bool layered = target.backing() != nullptr;
  if (layered && !copy.whole) co_return;
  uint64_t end = copy.begun;
  const uint64_t cluster = target.limits().cluster_bytes;
  if (cluster != 0 && end < target.length()) end = align_up(end, cluster);
  end = std::min(end, target.length());
  for (uint64_t at = copy.done; at < end;) {
    const Extent there = co_await target.layer_extent_at(at, end - at);
    if (there.allocated && !there.zero)
      co_await target.write_zeroes(at, there.length, {.may_unmap = true});
    at += there.length;
  }
}

}  // namespace cairn
