#include "export/nbd/nbd_export.h"

#include <algorithm>

#include "base/arith.h"

namespace cairn::nbd::server {
namespace {

constexpr unsigned kMostLookups = 1 << 17;

}  // namespace

uint16_t Export::flags() const {
  unsigned flags = kHasFlags | kSendFlush | kSendFua | kSendCache;
  if (options_.writable)
    flags |= kSendTrim | kSendWriteZeroes | kSendFastZero;
  else
    flags |= kReadOnly;
  if (options_.multi_conn) flags |= kMultiConn;
  return static_cast<uint16_t>(flags);
}

BlockSizeInfo Export::block_sizes() const {
  BlockSizeInfo sizes;
  const Limits& limits = options_.node->limits();
  // An export whose end is not aligned cannot promise more than bytes.
  const uint32_t alignment = std::min<uint32_t>(limits.request_alignment, 65536);
  if (is_aligned(options_.offset | options_.size, alignment)) sizes.minimum = alignment;
  sizes.preferred = std::max<uint32_t>(4096, sizes.minimum);
  if (limits.max_transfer != 0)
    sizes.maximum = static_cast<uint32_t>(
        std::clamp<uint64_t>(limits.max_transfer, sizes.preferred, kMaxPayload));
  return sizes;
}

std::vector<Export::ContextName> Export::contexts() const {
  std::vector<ContextName> names;
  names.push_back({kAllocation, "base:allocation"});
  if (options_.allocation_depth) names.push_back({kAllocationDepth, "qemu:allocation-depth"});
  for (size_t i = 0; i < options_.bitmaps.size(); ++i)
    names.push_back({kFirstBitmap + static_cast<uint32_t>(i),
                     "qemu:dirty-bitmap:" + options_.bitmaps[i].first});
  return names;
}

std::vector<uint32_t> Export::matching(const std::string& query, bool listing) const {
  std::vector<uint32_t> ids;
  const bool prefix =
      listing && (query == "base:" || query == "qemu:" || query == "qemu:dirty-bitmap:");
  for (const ContextName& context : contexts()) {
    if (context.name != query && !(prefix && context.name.starts_with(query))) continue;
    ids.push_back(context.id);
    // A bitmap may have been named twice: a client that asks for it wants its ranges once.
    if (!prefix) break;
  }
  return ids;
}

Task<StatusExtent> Export::state_at(uint32_t context, uint64_t offset, uint64_t max) const {
  if (context >= kFirstBitmap) {
    const DirtyLookup& lookup = options_.bitmaps.at(context - kFirstBitmap).second;
    const DirtyRun run = lookup(in_node(offset), max);
    co_return StatusExtent{.length = run.length, .flags = run.dirty ? kStateDirty : 0u};
  }
  const Extent extent = co_await options_.node->extent_at(in_node(offset), max);
  if (context == kAllocationDepth)
    co_return StatusExtent{.length = extent.length,
                           .flags = extent.allocated ? extent.depth + 1u : 0u};
  co_return StatusExtent{
      .length = extent.length,
      .flags = (extent.data ? 0u : kStateHole) | (extent.zero ? kStateZero : 0u)};
}

Task<std::vector<StatusExtent>> Export::status(uint32_t context, uint64_t offset, uint64_t length,
                                               size_t most, uint64_t longest) const {
  std::vector<StatusExtent> extents;
  const uint64_t end = offset + length;
  // A client that wants more asks again: one answer takes only so long.
  for (unsigned lookups = 0; offset < end && lookups < kMostLookups; ++lookups) {
    const StatusExtent next = co_await state_at(context, offset, end - offset);
    uint64_t left = std::min(next.length, end - offset);
    offset += left;
    if (!extents.empty() && extents.back().flags == next.flags) {
      const uint64_t room = longest - extents.back().length;
      const uint64_t joined = std::min(room, left);
      extents.back().length += joined;
      left -= joined;
    }
    while (left != 0 && extents.size() < most) {
      const uint64_t part = std::min(left, longest);
      extents.push_back({.length = part, .flags = next.flags});
      left -= part;
    }
    // What did not fit is asked for again by the client.
    if (left != 0) break;
  }
  co_return extents;
}

}  // namespace cairn::nbd::server
