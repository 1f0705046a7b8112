#include "protocol/iscsi/node.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "async/runtime.h"
#include "base/arith.h"
#include "base/bytes.h"
#include "block/context.h"
#include "block/driver.h"
#include "block/fixed_storage.h"
#include "protocol/driver_options.h"

namespace cairn::iscsi {
namespace {

// Longer requests are split: a command of many MiB holds up the others.
constexpr uint64_t kMostTransferBytes = 8 << 20;
constexpr uint64_t kMostLongBlocks = 0xffffffff, kMostShortBlocks = 0xffff;

// The list of parameters of an EXTENDED COPY (LID1; SPC-4, 6.4) with one segment.
std::array<std::byte, 108> copy_list(const Unit& source, const Unit& target, uint64_t from,
                                     uint64_t to, uint64_t blocks) {
  std::array<std::byte, 108> list{};
  const MutableByteSpan all(list);
  store_be<uint8_t>(all, 0, 1);       // the list's number
  store_be<uint8_t>(all, 1, 2 << 3);  // which is not used
  store_be<uint16_t>(all, 2, 64);     // bytes of what the units are named by
  store_be<uint32_t>(all, 8, 28);     // bytes of the segment
  for (const auto& [unit, at] : {std::pair(&source, 16), std::pair(&target, 48)}) {
    const MutableByteSpan name = all.subspan(static_cast<size_t>(at), 32);
    const Designator& designator = unit->designator;
    store_be<uint8_t>(name, 0, 0xe4);
    store_be<uint8_t>(name, 4, designator.code_set);
    store_be<uint8_t>(name, 5, designator.type);
    store_be<uint8_t>(name, 7, static_cast<uint8_t>(designator.bytes.size()));
    std::ranges::copy(designator.bytes, name.begin() + 8);
    store_be<uint32_t>(name, 28, unit->block_bytes);  // 24 bits of it
  }
  const MutableByteSpan segment = all.subspan(80, 28);
  store_be<uint8_t>(segment, 0, 0x02);  // block to block
  store_be<uint16_t>(segment, 2, 24);
  store_be<uint16_t>(segment, 6, 1);  // from the first unit to the second one
  store_be<uint16_t>(segment, 10, static_cast<uint16_t>(blocks));
  store_be<uint64_t>(segment, 12, from);
  store_be<uint64_t>(segment, 20, to);
  return list;
}

}  // namespace

IscsiNode::IscsiNode(Context& context, const Driver& driver, Target target, bool writable,
                     std::string name)
    : Node(context, driver), target_(std::move(target)), writable_(writable) {
  set_filename(std::move(name));
}

IscsiNode::~IscsiNode() = default;

Task<void> IscsiNode::connect() {
  for (unsigned i = 0; i < target_.sessions; ++i) {
    sessions_.push_back(std::make_unique<Session>(target_, context().cancel));
    co_await sessions_.back()->open();
    const Unit& unit = sessions_.back()->unit();
    if (i == 0) unit_ = unit;
    if (unit.blocks != unit_.blocks || unit.block_bytes != unit_.block_bytes)
      throw Error(ErrorKind::kIo, "iSCSI: the unit changed while it was opened");
  }
  if (unit_.mode_unknown) context().tell("iSCSI: Failed MODE_SENSE(6), LUN assumed writable");
  if (writable_ && (unit_.write_protected || unit_.cd))
    throw Error(ErrorKind::kDenied, "LUN is write protected");
  set_length(unit_.bytes());
  set_unbounded(false);
  apply_limits();
}

void IscsiNode::apply_limits() {
  Limits& limits = mutable_limits();
  const uint32_t block = unit_.block_bytes;
  limits.remote = true;
  limits.native_fua = unit_.fua;
  limits.request_alignment = block;
  const uint64_t blocks = unit_.long_addresses() ? kMostLongBlocks : kMostShortBlocks;
  const uint64_t most = unit_.most_transfer == 0 ? blocks : std::min(unit_.most_transfer, blocks);
  limits.max_transfer = std::max<uint64_t>(std::min(most * block, kMostTransferBytes), block);
  // What is no power of two is of no use.
  const uint64_t unit = std::has_single_bit(unit_.unmap_unit) ? unit_.unmap_unit * block : block;
  if (unit > (uint64_t{1} << 30)) return;
  limits.zero_alignment = unit_.same_unmaps ? unit : block;
  limits.discard_alignment = unit_.unmap ? unit : block;
  if (unit >= 4096 && unit <= (16 << 20)) limits.cluster_bytes = unit;
}

Session& IscsiNode::least_busy() {
  return **std::min_element(sessions_.begin(), sessions_.end(),
                            [](const auto& a, const auto& b) { return a->load() < b->load(); });
}

Task<void> IscsiNode::perform(Command& command) {
  co_await least_busy().perform(command);
  if (command.error()) std::rethrow_exception(command.error());
}

Task<void> IscsiNode::do_read(uint64_t offset, MutableByteSpan out) {
  if (out.empty()) co_return;
  Command command(Command::Kind::kRead, offset / unit_.block_bytes);
  command.set_out(out);
  co_await perform(command);
}

Task<void> IscsiNode::do_write(uint64_t offset, ByteSpan in, WriteFlags flags) {
  if (in.empty()) co_return;
  Command command(Command::Kind::kWrite, offset / unit_.block_bytes);
  command.set_in(in);
  if (flags.fua) command.set_fua();
  co_await perform(command);
}

Task<void> IscsiNode::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  const bool unmaps = unit_.unmapped_zero && (unit_.same_unmaps || unit_.same10_unmaps);
  const bool gives_up = flags.may_unmap && unmaps;
  if (!can_same_ || (flags.no_fallback && !gives_up)) throw Error::system(ENOTSUP);
  const bool narrow = gives_up && !unit_.same_unmaps;
  uint64_t most = narrow ? kMostShortBlocks : kMostLongBlocks;
  if (unit_.most_same != 0) most = std::min(most, unit_.most_same);
  uint64_t block = offset / unit_.block_bytes;
  for (uint64_t left = length / unit_.block_bytes; left != 0;) {
    const uint64_t part = std::min(left, most);
    Command command(Command::Kind::kWriteSame, block, part);
    if (gives_up) command.set_unmap();
    co_await least_busy().perform(command);
    if (command.refused()) {
      can_same_ = false;
      throw Error::system(ENOTSUP);
    }
    if (command.error()) std::rethrow_exception(command.error());
    block += part;
    left -= part;
  }
  if (flags.fua) co_await do_flush();
}

Task<void> IscsiNode::do_discard(uint64_t offset, uint64_t length) {
  if (!unit_.unmap) co_return;
  uint64_t most = kMostLongBlocks;
  if (unit_.most_unmap != 0) most = std::min(most, unit_.most_unmap);
  uint64_t block = offset / unit_.block_bytes;
  for (uint64_t left = length / unit_.block_bytes; left != 0;) {
    const uint64_t part = std::min(left, most);
    Command command(Command::Kind::kUnmap, block, part);
    co_await least_busy().perform(command);
    // A hint: blocks that cannot be unmapped stay.
    if (command.refused()) co_return;
    if (command.error()) std::rethrow_exception(command.error());
    block += part;
    left -= part;
  }
}

Task<void> IscsiNode::do_flush() {
  if (!writable_) co_return;
  Command command(Command::Kind::kSync);
  co_await perform(command);
}

Task<Extent> IscsiNode::do_extent(uint64_t offset, uint64_t max) {
  Extent extent = co_await Node::do_extent(offset, max);
  if (!unit_.thin || !unit_.unmapped_zero || !can_ask_provisioning_) co_return extent;
  const uint64_t first = offset / unit_.block_bytes;
  Command command(Command::Kind::kProvisioning, first);
  co_await least_busy().perform(command);
  const auto& runs = command.provisioning();
  if (command.refused()) can_ask_provisioning_ = false;
  if (command.error() || runs.empty() || runs[0].block != first || runs[0].count == 0)
    co_return extent;
  // Neighbours of one kind are one run.
  uint64_t count = 0;
  for (const Provisioning& run : runs) {
    if (run.mapped != runs[0].mapped || run.block != first + count || run.count == 0) break;
    count += run.count;
    if (count > max / unit_.block_bytes + 1) break;
  }
  const uint64_t end = std::min((first + count) * unit_.block_bytes, length());
  extent.length = std::clamp<uint64_t>(end - offset, 1, max);
  extent.zero = !runs[0].mapped;
  extent.data = runs[0].mapped;
  co_return extent;
}

Task<void> IscsiNode::do_resize(ResizeRequest request) {
  refuse_preallocation(request.preallocation);
  Command command(Command::Kind::kCapacity);
  co_await perform(command);
  const uint64_t now = command.blocks() * unit_.block_bytes;
  if (now > length() && command.blocks() <= static_cast<uint64_t>(INT64_MAX) / unit_.block_bytes)
    set_length(now);
  if (request.exact && request.length != length())
    throw Error(ErrorKind::kUnsupported, "Cannot resize iSCSI devices");
  if (request.length > length())
    throw too_small(context(), ErrorKind::kInvalid, "Cannot grow iSCSI devices", length(),
                    request.length);
}

Task<bool> IscsiNode::copy_range(Node& source, uint64_t source_offset, uint64_t offset,
                                 uint64_t length) {
  auto* from = dynamic_cast<IscsiNode*>(&source);
  if (from == nullptr || !can_copy_) co_return false;
  const Unit& theirs = from->unit_;
  const uint32_t size = unit_.block_bytes;
  if (theirs.designator.bytes.empty() || unit_.designator.bytes.empty() ||
      theirs.block_bytes != size || (source_offset | offset | length) % size != 0)
    co_return false;
  for (uint64_t done = 0; done < length;) {
    const uint64_t blocks = std::min((length - done) / size, kMostShortBlocks);
    const auto list =
        copy_list(theirs, unit_, (source_offset + done) / size, (offset + done) / size, blocks);
    Command command(Command::Kind::kExtendedCopy, (offset + done) / size);
    command.set_in(list);
    co_await least_busy().perform(command);
    if (command.error() && done == 0 && command.refused()) {
      can_copy_ = false;
      co_return false;
    }
    if (command.error()) std::rethrow_exception(command.error());
    done += blocks * size;
  }
  co_return true;
}

Task<void> IscsiNode::do_close() {
  auto& sessions = sessions_;
  co_await run_blocking([&sessions] {
    for (const auto& session : sessions) session->stop();
  });
}

}  // namespace cairn::iscsi
