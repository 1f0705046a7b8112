#include "protocol/nvme/node.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "async/task_group.h"
#include "base/arith.h"
#include "block/context.h"
#include "block/fixed_storage.h"
#include "protocol/driver_options.h"
#include "protocol/nvme/prp.h"

namespace cairn::nvme {
namespace {

// From here on to map the memory of a request takes less time than to copy its data.
constexpr uint64_t kLeastMapped = 256 << 10;
// Of one request: what it locks of the memory.
constexpr uint64_t kMostAtATime = 4 << 20;
// A command whose status says that it may pass is sent so often.
constexpr unsigned kMostTries = 4;
constexpr std::chrono::milliseconds kFirstDelay{10};

}  // namespace

// A read or write of a part of the disk.
struct NvmeNode::Transfer {
  Opcode opcode = Opcode::kRead;
  uint64_t offset = 0;
  std::byte* data = nullptr;  // a read writes to it, a write only reads
  uint64_t length = 0;
  bool fua = false;

  Transfer part(uint64_t begin, uint64_t bytes) const {
    return {opcode, offset + begin, data + begin, bytes, fua};
  }
};

NvmeNode::NvmeNode(Context& context, const Driver& driver, std::unique_ptr<Device> device,
                   Controller::Settings settings, uint32_t name_space, std::string name)
    : Node(context, driver),
      controller_(context.runtime(), std::move(device), std::move(settings)),
      name_space_(name_space) {
  set_filename(std::move(name));
  set_unbounded(false);
}

Task<void> NvmeNode::connect() {
  co_await controller_.open(name_space_);
  const NamespaceIdentity& disk = controller_.disk();
  set_length(disk.length());
  Limits& limits = mutable_limits();
  limits.request_alignment = disk.block_bytes;
  limits.zero_alignment = limits.discard_alignment = disk.block_bytes;
  limits.max_transfer = kMostAtATime;
  limits.native_fua = true;
}

void NvmeNode::check_protection() const {
  if (controller_.disk().write_protected)
    throw Error(ErrorKind::kDenied, "the namespace is write-protected");
}

Value NvmeNode::specific_info() const {
  const ControllerIdentity& identity = controller_.identity();
  Value info = Value::object();
  info.set("model", identity.model);
  info.set("serial", identity.serial);
  info.set("firmware", identity.firmware);
  info.set("block-size", uint64_t{controller_.disk().block_bytes});
  info.set("volatile-cache", identity.volatile_cache);
  return info;
}

Task<void> NvmeNode::do_read(uint64_t offset, MutableByteSpan out) {
  return transfer({Opcode::kRead, offset, out.data(), out.size(), false});
}

Task<void> NvmeNode::do_write(uint64_t offset, ByteSpan in, WriteFlags flags) {
  return transfer(
      {Opcode::kWrite, offset, const_cast<std::byte*>(in.data()), in.size(), flags.fua});
}

Task<void> NvmeNode::transfer(Transfer transfer) {
  if (transfer.length == 0) co_return;
  co_await controller_.on_channel(
      [this, &transfer](Channel& channel) { return transfer_here(channel, transfer); });
}

// By a mapping of the request's own memory where that pays and is possible, else through buffers.
Task<void> NvmeNode::transfer_here(Channel& channel, const Transfer& transfer) {
  const bool aligned = is_aligned(reinterpret_cast<uintptr_t>(transfer.data), 4);
  if (transfer.length < kLeastMapped || !aligned) {
    co_await send_parts(channel, transfer, 0);
    co_return;
  }
  DmaSpace::Mapping mapping;
  bool mapped = false;
  try {
    mapping = controller_.space().map({transfer.data, transfer.length},
                                      transfer.opcode == Opcode::kRead, AddressSpace::End::kHigh);
    mapped = true;
  } catch (const Error&) {
    // Too much memory is locked, or it is of a kind that cannot be.
  }
  co_await send_parts(channel, transfer, mapped ? mapping.iova() : 0);
}

// IOVA: where the device finds the data; 0: it is copied.
Task<void> NvmeNode::send_parts(Channel& channel, const Transfer& transfer, uint64_t iova) {
  const uint64_t most = iova != 0
                            ? controller_.most_transfer()
                            : std::min<uint64_t>(controller_.most_transfer(), BouncePool::kBytes);
  const auto send = [&](const Transfer& part, uint64_t begin) {
    return iova != 0 ? send_mapped(channel, part, iova + begin) : send_copied(channel, part);
  };
  if (transfer.length <= most) {
    co_await send(transfer, 0);
    co_return;
  }
  std::vector<Transfer> parts;
  for (uint64_t done = 0; done < transfer.length; done += most)
    parts.push_back(transfer.part(done, std::min(most, transfer.length - done)));
  TaskGroup group;
  {
    const Channel::Batch batch(channel);
    for (const Transfer& part : parts) group.spawn(send(part, part.offset - transfer.offset));
  }
  co_await group.join();
}

Task<void> NvmeNode::send_mapped(Channel& channel, const Transfer& part, uint64_t iova) {
  const Channel::Slot slot = co_await channel.acquire();
  const Prps prps =
      make_prps(iova, part.length, controller_.page_bytes(), slot.page_iova(), slot.page());
  Command command = on_blocks(part.opcode, name_space_, block_of(part.offset),
                              block_of(part.length), {.fua = part.fua});
  command.prp1 = prps.first;
  command.prp2 = prps.second;
  co_await perform(channel, slot, command);
}

Task<void> NvmeNode::send_copied(Channel& channel, const Transfer& part) {
  // The page of the slot is free where no list is needed.
  const bool small = part.length <= controller_.page_bytes();
  BouncePool::Loan loan;
  if (!small) loan = co_await controller_.buffers().borrow();
  const Channel::Slot slot = co_await channel.acquire();
  const MutableByteSpan buffer = (small ? slot.page() : loan.span()).first(part.length);
  if (part.opcode == Opcode::kWrite) std::memcpy(buffer.data(), part.data, part.length);
  const Prps prps = make_prps(small ? slot.page_iova() : loan.iova(), part.length,
                              controller_.page_bytes(), slot.page_iova(), slot.page());
  Command command = on_blocks(part.opcode, name_space_, block_of(part.offset),
                              block_of(part.length), {.fua = part.fua});
  command.prp1 = prps.first;
  command.prp2 = prps.second;
  co_await perform(channel, slot, command);
  if (part.opcode == Opcode::kRead) std::memcpy(part.data, buffer.data(), part.length);
}

// Again where the status says that it may help. Throws what the status says.
Task<void> NvmeNode::perform(Channel& channel, const Channel::Slot& slot, const Command& command) {
  std::chrono::milliseconds delay = kFirstDelay;
  for (unsigned tries = 1;; ++tries) {
    const Completion completion = co_await channel.perform(slot, command);
    if (completion.status.ok()) co_return;
    if (!completion.status.passing() || tries == kMostTries)
      throw Error(completion.status.kind(), completion.status.text());
    co_await sleep_for(delay);
    delay *= 4;
  }
}

Task<void> NvmeNode::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  if (!controller_.identity().write_zeroes) throw Error::system(ENOTSUP);
  co_await controller_.on_channel(
      [=, this](Channel& channel) { return send_zeroes(channel, offset, length, flags); });
}

Task<void> NvmeNode::send_zeroes(Channel& channel, uint64_t offset, uint64_t length,
                                 WriteFlags flags) {
  const BlockFlags block_flags{
      .fua = flags.fua, .deallocate = flags.may_unmap && controller_.disk().zeroes_deallocate};
  const Channel::Slot slot = co_await channel.acquire();
  for (uint64_t first = block_of(offset), left = block_of(length); left != 0;) {
    const uint64_t blocks = std::min(left, kMostBlocks);
    const Command command =
        on_blocks(Opcode::kWriteZeroes, name_space_, first, blocks, block_flags);
    co_await perform(channel, slot, command);
    first += blocks;
    left -= blocks;
  }
}

Task<void> NvmeNode::do_discard(uint64_t offset, uint64_t length) {
  if (!controller_.identity().deallocates || length == 0) co_return;
  co_await controller_.on_channel(
      [=, this](Channel& channel) { return send_discard(channel, offset, length); });
}

Task<void> NvmeNode::send_discard(Channel& channel, uint64_t offset, uint64_t length) {
  const Channel::Slot slot = co_await channel.acquire();
  for (uint64_t first = block_of(offset), left = block_of(length); left != 0;) {
    unsigned ranges = 0;
    for (; ranges < kMostRanges && left != 0; ++ranges) {
      const uint64_t blocks = std::min(left, kMostRangeBlocks);
      encode_range(slot.page().subspan(ranges * kRangeBytes, kRangeBytes), first,
                   static_cast<uint32_t>(blocks));
      first += blocks;
      left -= blocks;
    }
    const Command command = deallocate_command(name_space_, ranges, slot.page_iova());
    co_await perform(channel, slot, command);
  }
}

Task<void> NvmeNode::do_flush() {
  co_await controller_.on_channel([this](Channel& channel) { return send_flush(channel); });
}

Task<void> NvmeNode::send_flush(Channel& channel) {
  const Channel::Slot slot = co_await channel.acquire();
  const Command command = flush_command(name_space_);
  co_await perform(channel, slot, command);
}

Task<void> NvmeNode::do_resize(ResizeRequest request) {
  refuse_preallocation(request.preallocation);
  if (request.exact && request.length != length())
    throw Error(ErrorKind::kUnsupported, "Cannot resize NVMe devices");
  if (request.length > length())
    throw too_small(context(), ErrorKind::kInvalid, "Cannot grow NVMe devices", length(),
                    request.length);
  co_return;
}

Task<void> NvmeNode::do_close() { co_await controller_.close(); }

}  // namespace cairn::nvme
