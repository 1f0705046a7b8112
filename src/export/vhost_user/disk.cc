#include "export/vhost_user/disk.h"

#include <algorithm>
#include <cstring>

#include "base/arith.h"
#include "base/buffer.h"
#include "base/error.h"

namespace cairn::vhost_user {
namespace {

uint64_t total(const std::vector<Segment>& segments) {
  uint64_t sum = 0;
  for (const Segment& segment : segments) sum += segment.length;
  return sum;
}

// Calls MOVE(memory of the guest, bytes done) for the parts of SEGMENTS from OFFSET on that make
// LENGTH bytes together.
template <class Move>
void for_parts(const std::vector<Segment>& segments, uint64_t offset, size_t length, Move move) {
  size_t done = 0;
  for (const Segment& segment : segments) {
    if (offset >= segment.length) {
      offset -= segment.length;
      continue;
    }
    const size_t part = std::min<size_t>(segment.length - offset, length - done);
    if (part == 0) return;
    move(segment.data + offset, part, done);
    done += part;
    offset = 0;
  }
}

void copy_out(const std::vector<Segment>& segments, uint64_t offset, MutableByteSpan out) {
  for_parts(segments, offset, out.size(), [&](std::byte* guest, size_t part, size_t done) {
    std::memcpy(out.data() + done, guest, part);
  });
}

void copy_in(const std::vector<Segment>& segments, uint64_t offset, ByteSpan in) {
  for_parts(segments, offset, in.size(), [&](std::byte* guest, size_t part, size_t done) {
    std::memcpy(guest, in.data() + done, part);
  });
}

}  // namespace

Disk::Disk(DiskOptions options) : options_(std::move(options)) {
  if (!is_power_of_two(options_.block_bytes) || options_.block_bytes < kSectorBytes ||
      options_.block_bytes > (2 << 20))
    invalid("a logical block has 512 bytes to 2 MiB, a power of two");
  if (options_.queues == 0) invalid("a disk has at least one queue");
}

uint64_t Disk::features() const {
  using namespace feature;
  uint64_t offered = kSizeMax | kSegMax | kBlockSize | kFlush | kTopology | kConfigWce |
                     kMultiQueue | kDiscard | kWriteZeroes | kNotifyOnEmpty | kLogAll | kIndirect |
                     kEventIndex | feature::kProtocolFeatures | kVersion1;
  if (!options_.writable) offered |= kReadOnly;
  return offered;
}

BlockConfig Disk::config() const {
  return {.capacity = div_ceil(node().length(), kSectorBytes),
          .block_bytes = options_.block_bytes,
          .write_cache = !options_.write_through,
          .queues = options_.queues};
}

bool Disk::inside(uint64_t sector, uint64_t bytes) const {
  const uint64_t capacity = div_ceil(node().length(), kSectorBytes);
  return sector <= capacity && bytes / kSectorBytes <= capacity - sector;
}

void Disk::check(const Chain& chain) {
  if (chain.writable.empty() || total(chain.readable) < RequestHeader::kBytes)
    throw Error(ErrorKind::kCorrupt, "request without header or status");
}

// The last sector may be longer than what the node has of it.
Task<void> Disk::read_piece(uint64_t offset, MutableByteSpan out) {
  const uint64_t length = node().length();
  const size_t inside =
      offset >= length ? 0 : static_cast<size_t>(std::min<uint64_t>(out.size(), length - offset));
  if (inside != out.size()) std::memset(out.data() + inside, 0, out.size() - inside);
  if (inside != 0) co_await node().read(offset, out.first(inside));
}

Task<void> Disk::write_piece(uint64_t offset, ByteSpan in, bool durable) {
  const uint64_t length = node().length();
  if (offset >= length) co_return;
  const auto inside = static_cast<size_t>(std::min<uint64_t>(in.size(), length - offset));
  const WriteFlags flags{.fua = durable, .may_unmap = false, .no_fallback = false};
  co_await node().write(offset, in.first(inside), flags);
}

// One part goes straight to the guest's memory, several are read at once and then handed out.
Task<Status> Disk::read(std::vector<Segment>& out, uint64_t sector) {
  const uint64_t bytes = total(out);
  if (bytes % kSectorBytes != 0 || !inside(sector, bytes)) co_return Status::kIoError;
  const uint64_t offset = sector * kSectorBytes;
  if (out.size() == 1) {
    co_await read_piece(offset, {out[0].data, static_cast<size_t>(out[0].length)});
    co_return Status::kOk;
  }
  AlignedBuffer small;
  BufferPool::Loan loan;
  if (bytes <= kSmallBytes)
    small = AlignedBuffer(bytes);
  else
    loan = co_await large_.borrow();
  const MutableByteSpan buffer = loan ? loan.span() : small.span();
  for (uint64_t done = 0; done < bytes;) {
    const auto part = static_cast<size_t>(std::min<uint64_t>(bytes - done, buffer.size()));
    co_await read_piece(offset + done, buffer.first(part));
    copy_in(out, done, buffer.first(part));
    done += part;
  }
  co_return Status::kOk;
}

// What is written is copied first: the guest may change its memory meanwhile, and compressing or
// checksumming what changes is not safe.
Task<Status> Disk::write(std::vector<Segment>& in, uint64_t sector, bool durable) {
  const uint64_t bytes = total(in) - RequestHeader::kBytes;
  if (!options_.writable || bytes % kSectorBytes != 0 || !inside(sector, bytes))
    co_return Status::kIoError;
  AlignedBuffer small;
  BufferPool::Loan loan;
  if (bytes <= kSmallBytes)
    small = AlignedBuffer(bytes);
  else
    loan = co_await large_.borrow();
  const MutableByteSpan buffer = loan ? loan.span() : small.span();
  for (uint64_t done = 0; done < bytes;) {
    const auto part = static_cast<size_t>(std::min<uint64_t>(bytes - done, buffer.size()));
    copy_out(in, RequestHeader::kBytes + done, buffer.first(part));
    co_await write_piece(sector * kSectorBytes + done, buffer.first(part), durable);
    done += part;
  }
  co_return Status::kOk;
}

Task<Status> Disk::discard(const Chain& chain, Agreement agreement, bool zeroes) {
  if (!options_.writable) co_return Status::kIoError;
  std::byte bytes[DiscardSegment::kBytes];
  if (total(chain.readable) != RequestHeader::kBytes + sizeof bytes) co_return Status::kIoError;
  copy_out(chain.readable, RequestHeader::kBytes, bytes);
  const DiscardSegment range = DiscardSegment::decode(bytes);
  const bool unmap = (range.flags & DiscardSegment::kUnmap) != 0;
  if ((range.flags & ~DiscardSegment::kUnmap) != 0 || (!zeroes && unmap))
    co_return Status::kUnsupported;
  const uint64_t length = uint64_t{range.sectors} * kSectorBytes;
  if (range.sectors > BlockConfig::kMostSectors || !inside(range.sector, length))
    co_return Status::kIoError;
  const uint64_t offset = range.sector * kSectorBytes;
  const uint64_t end = node().length();
  const uint64_t in_node = offset >= end ? 0 : std::min(length, end - offset);
  if (in_node == 0) co_return Status::kOk;
  if (zeroes) {
    const WriteFlags flags{
        .fua = agreement.durable_writes, .may_unmap = unmap, .no_fallback = false};
    co_await node().write_zeroes(offset, in_node, flags);
  } else {
    co_await node().discard(offset, in_node);
  }
  co_return Status::kOk;
}

Status Disk::give_id(std::vector<Segment>& out) const {
  std::byte id[kIdBytes] = {};
  std::memcpy(id, options_.serial.data(), std::min(options_.serial.size(), kIdBytes));
  copy_in(out, 0, ByteSpan(id).first(std::min<size_t>(kIdBytes, total(out))));
  return Status::kOk;
}

Task<Status> Disk::dispatch(Chain& chain, Agreement agreement) {
  std::byte bytes[RequestHeader::kBytes];
  copy_out(chain.readable, 0, bytes);
  const RequestHeader header = RequestHeader::decode(bytes);
  switch (static_cast<RequestType>(header.type)) {
    case RequestType::kIn: {
      const Status status = co_await read(chain.writable, header.sector);
      co_return status;
    }
    case RequestType::kOut: {
      const Status status = co_await write(chain.readable, header.sector, agreement.durable_writes);
      co_return status;
    }
    case RequestType::kFlush:
      if (options_.writable) co_await node().flush();
      co_return Status::kOk;
    case RequestType::kGetId:
      co_return give_id(chain.writable);
    case RequestType::kDiscard:
    case RequestType::kWriteZeroes: {
      const bool zeroes = header.type == static_cast<uint32_t>(RequestType::kWriteZeroes);
      const Status status = co_await discard(chain, agreement, zeroes);
      co_return status;
    }
  }
  co_return Status::kUnsupported;
}

Task<uint32_t> Disk::perform(Chain& chain, const SplitRing& ring, Agreement agreement) {
  // The last byte that the device may write is the status.
  Segment status = chain.writable.back();
  status.data += status.length - 1;
  status.guest_address += status.length - 1;
  status.length = 1;
  if (--chain.writable.back().length == 0) chain.writable.pop_back();
  Status result = Status::kIoError;
  try {
    result = co_await dispatch(chain, agreement);
  } catch (const std::exception&) {
    result = Status::kIoError;
  }
  for (const Segment& segment : chain.writable)
    ring.log_written(segment.guest_address, segment.length);
  *status.data = static_cast<std::byte>(result);
  ring.log_written(status.guest_address, 1);
  co_return static_cast<uint32_t>(std::min<uint64_t>(total(chain.writable) + 1, UINT32_MAX));
}

}  // namespace cairn::vhost_user
