#include "protocol/nbd/node.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/arith.h"
#include "block/context.h"
#include "block/fixed_storage.h"

namespace cairn::nbd::client {
namespace {

// Extents of one answer are believed for so long: others may write to the export.
constexpr std::chrono::milliseconds kExtentsAge{1000};
// The most that one question about extents covers.
constexpr uint64_t kStatusBytes = uint64_t{1} << 30;

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorKind::kInvalid, "the NBD server came back as another: " + what);
}

}  // namespace

NbdNode::NbdNode(Context& context, const Driver& driver, Target target, bool writable,
                 std::string name)
    : Node(context, driver),
      target_(std::move(target)),
      writable_(writable),
      links_([this](Worker& worker) {
        return std::make_unique<Link>(target_, worker,
                                      [this](const Agreement& agreed) { accept(agreed); });
      }) {
  set_filename(std::move(name));
}
NbdNode::~NbdNode() = default;

Task<void> NbdNode::connect() {
  co_await links_.open(context().runtime());
  if (offers(kMultiConn)) links_.add_others(context().runtime());
}

// The first connection decides what the disk is; the others must fit.
void NbdNode::accept(const Agreement& agreed) {
  std::lock_guard lock(first_mutex_);
  if (!has_first_) {
    if (writable_ && agreed.offers(kReadOnly))
      throw context().profile.explanations ? Error(ErrorKind::kDenied, "NBD export is read-only")
                                           : Error::system(EACCES, "Could not open image");
    has_first_ = true;
    first_ = agreed;
    set_length(agreed.size);
    apply_limits(agreed);
    return;
  }
  static constexpr uint16_t kUsed =
      kSendFlush | kSendFua | kSendTrim | kSendWriteZeroes | kSendFastZero;
  if (agreed.size < length())
    refuse(fmt::format("it has shrunk from {} to {} bytes", length(), agreed.size));
  if (writable_ && agreed.offers(kReadOnly)) refuse("it is read-only now");
  if ((first_.flags & kUsed & ~agreed.flags) != 0 || (first_.extended && !agreed.extended) ||
      (first_.context && !agreed.context))
    refuse("it can do less than before");
  if (agreed.blocks && (agreed.blocks->minimum > limits().request_alignment ||
                        agreed.blocks->maximum < limits().max_transfer))
    refuse("its block sizes have changed");
  if (agreed.size > length()) set_length(agreed.size);
}

void NbdNode::apply_limits(const Agreement& agreed) {
  Limits& limits = mutable_limits();
  limits.max_transfer = kMaxPayload;
  if (agreed.blocks) {
    limits.request_alignment = agreed.blocks->minimum;
    limits.max_transfer = std::min(agreed.blocks->maximum, kMaxPayload);
  } else if (is_aligned(agreed.size, 512) && !agreed.context) {
    limits.request_alignment = 512;
  }
  const uint32_t unit = limits.request_alignment;
  limits.max_transfer = std::max<uint64_t>(unit, align_down(limits.max_transfer, unit));
  limits.zero_alignment = unit;
  limits.discard_alignment = unit;
  limits.remote = true;
  limits.native_fua = agreed.offers(kSendFua);
}

Task<void> NbdNode::perform(Operation& operation) {
  co_await links_.perform(operation);
  if (operation.error == 0) co_return;
  throw Error::system(operation.error, operation.error_text.empty()
                                           ? std::string()
                                           : "the NBD server says: " + operation.error_text);
}

// --- data ---

Task<void> NbdNode::do_read(uint64_t offset, MutableByteSpan out) {
  const uint64_t end = length();
  const uint64_t there = offset < end ? std::min<uint64_t>(out.size(), end - offset) : 0;
  if (there < out.size()) std::memset(out.data() + there, 0, out.size() - there);
  if (there == 0) co_return;
  Operation operation;
  operation.command = Command::kRead;
  operation.offset = offset;
  operation.length = there;
  operation.out = out.first(there);
  co_await perform(operation);
}

Task<void> NbdNode::do_write(uint64_t offset, ByteSpan in, WriteFlags flags) {
  const uint64_t end = length();
  const uint64_t there = offset < end ? std::min<uint64_t>(in.size(), end - offset) : 0;
  // The rest of the last sector may be there to fill it up, but holds nothing.
  if (!is_zero(in.subspan(there))) throw Error::system(ENOSPC);
  if (there == 0) co_return;
  Operation operation;
  operation.command = Command::kWrite;
  if (flags.fua) operation.flags |= kCmdFua;
  operation.offset = offset;
  operation.length = there;
  operation.payload = in.first(there);
  forget_extents();
  co_await perform(operation);
  forget_extents();
}

// A command without payload on a range, in steps of at most MOST bytes.
Task<void> NbdNode::change(Command command, uint16_t flags, uint64_t offset, uint64_t length,
                           uint64_t most) {
  const uint64_t end = std::min(this->length(), offset + length);
  forget_extents();
  while (offset < end) {
    Operation operation;
    operation.command = command;
    operation.flags = flags;
    operation.offset = offset;
    operation.length = std::min(end - offset, most);
    co_await perform(operation);
    offset += operation.length;
  }
  forget_extents();
}

Task<void> NbdNode::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  if (!offers(kSendWriteZeroes) || (flags.no_fallback && !offers(kSendFastZero)))
    throw Error::system(ENOTSUP);
  uint16_t wire = 0;
  if (flags.fua) wire |= kCmdFua;
  if (!flags.may_unmap) wire |= kCmdNoHole;
  if (flags.no_fallback) wire |= kCmdFastZero;
  const uint64_t most = first_.extended ? UINT64_MAX : limits().max_transfer;
  co_await change(Command::kWriteZeroes, wire, offset, length, most);
}

Task<void> NbdNode::do_discard(uint64_t offset, uint64_t length) {
  if (!offers(kSendTrim)) co_return;
  const uint64_t most =
      first_.extended ? UINT64_MAX : align_down(INT32_MAX, limits().request_alignment);
  try {
    co_await change(Command::kTrim, 0, offset, length, most);
  } catch (const Error& error) {
    // A hint that the server does not take.
    if (error.kind() != ErrorKind::kUnsupported) throw;
  }
}

// By the server, for itself: nothing travels.
Task<void> NbdNode::prefetch_range(uint64_t offset, uint64_t length) {
  if (!offers(kSendCache)) {
    co_await prefetch_by_reading(*this, offset, length);
    co_return;
  }
  const uint64_t unit = limits().request_alignment;
  const uint64_t end = std::min(this->length(), align_up(offset + length, unit));
  offset = align_down(offset, unit);
  while (offset < end) {
    Operation operation;
    operation.command = Command::kCache;
    operation.offset = offset;
    operation.length = std::min(end - offset, limits().max_transfer);
    co_await perform(operation);
    offset += operation.length;
  }
}

Task<void> NbdNode::do_flush() {
  if (!offers(kSendFlush)) co_return;
  Operation operation;
  operation.command = Command::kFlush;
  co_await perform(operation);
}

// --- extents ---

void NbdNode::forget_extents() {
  std::lock_guard lock(extents_mutex_);
  ++extents_epoch_;
  extents_.clear();
}

bool NbdNode::known_extent(uint64_t offset, KnownExtent* found) {
  std::lock_guard lock(extents_mutex_);
  if (extents_.empty() || std::chrono::steady_clock::now() - extents_time_ > kExtentsAge)
    return false;
  const auto after =
      std::upper_bound(extents_.begin(), extents_.end(), offset,
                       [](uint64_t at, const KnownExtent& extent) { return at < extent.begin; });
  if (after == extents_.begin() || std::prev(after)->end <= offset) return false;
  *found = *std::prev(after);
  return true;
}

// What a server says of LENGTH bytes from OFFSET, in units of requests. Older servers do not keep
// to their own unit: of one with several answers the careful thing is said, data or changed.
std::vector<NbdNode::KnownExtent> NbdNode::whole_units(uint64_t offset, uint64_t length,
                                                       std::span<const StatusExtent> said) const {
  const uint64_t unit = limits().request_alignment;
  const uint64_t mixed = target_.wish.context.starts_with("qemu:dirty-bitmap:") ? kStateHole : 0;
  const uint64_t end = offset + length;
  std::vector<KnownExtent> extents;
  uint64_t done = offset;
  const auto add = [&](uint64_t stop, uint64_t flags) {
    if (stop <= done) return;
    if (!extents.empty() && extents.back().flags == flags)
      extents.back().end = stop;
    else
      extents.push_back({.begin = done, .end = stop, .flags = flags});
    done = stop;
  };
  uint64_t at = offset;
  for (const StatusExtent& one : said) {
    if (at >= end) break;
    if (done < at) add(std::min(done + unit, end), mixed);
    // The last one may run past what was asked for.
    at += std::min(one.length, end - at);
    add(at == end ? at : align_down(at, unit), one.flags);
  }
  if (done < at) add(std::min(done + unit, end), mixed);
  return extents;
}

Task<void> NbdNode::ask_extents(uint64_t offset, KnownExtent* found) {
  const uint64_t unit = limits().request_alignment;
  uint64_t epoch = 0;
  {
    std::lock_guard lock(extents_mutex_);
    epoch = extents_epoch_;
  }
  Operation operation;
  operation.command = Command::kBlockStatus;
  operation.offset = align_down(offset, unit);
  operation.length = std::min(length() - operation.offset, kStatusBytes);
  co_await perform(operation);
  std::vector<KnownExtent> extents =
      whole_units(operation.offset, operation.length, operation.extents);
  // One extent at least is there: an answer without is refused before.
  *found = extents.front();
  std::lock_guard lock(extents_mutex_);
  if (epoch != extents_epoch_) co_return;
  extents_ = std::move(extents);
  extents_time_ = std::chrono::steady_clock::now();
}

Task<Extent> NbdNode::do_extent(uint64_t offset, uint64_t max) {
  Extent extent = co_await Node::do_extent(offset, max);
  if (!first_.context) co_return extent;
  KnownExtent found{};
  const bool known = known_extent(offset, &found);
  if (!known) co_await ask_extents(offset, &found);
  extent.length = std::min(max, found.end - offset);
  // Depths are shown as if they were states; those above 2 count as 2.
  uint64_t flags = found.flags;
  if (target_.wish.context == "qemu:allocation-depth") flags = std::min<uint64_t>(flags, 2);
  extent.data = (flags & kStateHole) == 0;
  extent.zero = (flags & kStateZero) != 0;
  // Neither: a hole whose content is not defined.
  if (!extent.data && !extent.zero) extent.host = nullptr;
  co_return extent;
}

// --- size, closing ---

Task<void> NbdNode::do_resize(ResizeRequest request) {
  if (request.length != length() && request.exact)
    throw Error(ErrorKind::kUnsupported, "Cannot resize NBD nodes");
  if (request.length > length())
    throw too_small(context(), ErrorKind::kUnsupported, "Cannot grow NBD nodes", length(),
                    request.length);
  co_return;
}

Task<void> NbdNode::do_close() { co_await links_.close(); }

}  // namespace cairn::nbd::client
