#include "protocol/nbd/connection.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace cairn::nbd::client {
namespace {

// Pieces of one read that do not touch each other; a server that needs more plays with us.
constexpr size_t kMostPieces = 4096;
constexpr size_t kMostErrorBytes = 65535 + 14;

const std::string kBroken = "the NBD server breaks the protocol: ";

[[noreturn]] void broken(const std::string& what) {
  throw Error(ErrorKind::kInvalid, kBroken + what);
}

// Whether LENGTH bytes from OFFSET on are within the request.
bool inside(const Operation& operation, uint64_t offset, uint64_t length) {
  return offset >= operation.offset && length <= operation.length &&
         offset - operation.offset <= operation.length - length;
}

// Marks a piece of a read as there; it must not have been before.
void cover(Operation& operation, uint64_t begin, uint64_t end) {
  auto& pieces = operation.covered;
  const auto next =
      std::lower_bound(pieces.begin(), pieces.end(), begin,
                       [](const Operation::Piece& piece, uint64_t at) { return piece.end <= at; });
  if (next != pieces.end() && next->begin < end) broken("pieces of a read overlap");
  const bool joins_last = next != pieces.begin() && std::prev(next)->end == begin;
  const bool joins_next = next != pieces.end() && next->begin == end;
  if (joins_last && joins_next) {
    std::prev(next)->end = next->end;
    pieces.erase(next);
  } else if (joins_last) {
    std::prev(next)->end = end;
  } else if (joins_next) {
    next->begin = begin;
  } else {
    if (pieces.size() == kMostPieces) broken("a read in too many pieces");
    pieces.insert(next, {begin, end});
  }
}

bool covers_all(const Operation& operation) {
  return operation.covered.size() == 1 && operation.covered[0].begin == operation.offset &&
         operation.covered[0].end == operation.offset + operation.length;
}

}  // namespace

Connection::Connection(std::unique_ptr<Stream> stream, const Agreement& agreed)
    : PipelinedConnection(std::move(stream), kBroken), agreed_(agreed) {}
Connection::~Connection() = default;

Task<bool> Connection::perform(Operation& operation) {
  operation.status_seen = false;
  operation.error = 0;
  operation.covered.clear();
  operation.extents.clear();
  return transact(operation, operation.payload);
}

void Connection::encode(const PipelinedRequest& waiting, uint32_t index, uint32_t generation,
                        Bytes& header) const {
  const auto& operation = static_cast<const Operation&>(waiting);
  Request request;
  request.flags = operation.flags;
  request.command = operation.command;
  request.cookie = uint64_t{generation} << 32 | index;
  request.offset = operation.offset;
  request.length = operation.length;
  if (agreed_.extended && operation.command == Command::kWrite) request.flags |= kCmdPayloadLen;
  request.encode(header, agreed_.extended);
}

Operation& Connection::find(uint64_t cookie) const {
  const uint64_t index = cookie & 0xffffffff;
  if (index >= slots().size() || !slots()[index].waits() ||
      slots()[index].generation != cookie >> 32)
    broken("a reply to a request that was not made");
  return static_cast<Operation&>(*slots()[index].request);
}

void Connection::complete(Operation& operation) const {
  if (operation.command == Command::kRead && operation.error == 0 && !covers_all(operation))
    broken("a read was answered in part only");
  if (operation.command == Command::kBlockStatus && operation.error == 0 && !operation.status_seen)
    broken("a block status without extents");
  finish(operation);
}

Task<void> Connection::read(MutableByteSpan out) {
  if (out.empty()) co_return;
  const bool there = co_await stream().read_exact(out);
  if (!there) throw Error(ErrorKind::kIo, "the NBD server closed the connection");
}

Task<void> Connection::receive_one() {
  std::array<std::byte, ChunkHeader::kExtendedBytes> raw;
  const MutableByteSpan all(raw);
  // Every form of reply is at least as long as a simple one.
  co_await read(all.first(SimpleReply::kBytes));
  const auto magic = load_be<uint32_t>(all, 0);
  if (magic == kSimpleReplyMagic) {
    if (agreed_.extended) broken("a simple reply after extended headers were agreed on");
    const SimpleReply reply = SimpleReply::decode(all.first(SimpleReply::kBytes));
    Operation& operation = find(reply.cookie);
    co_await receive_simple(all.first(SimpleReply::kBytes), operation);
    complete(operation);
    co_return;
  }
  const bool extended = magic == kExtendedReplyMagic;
  if (!extended && magic != kStructuredReplyMagic) broken("bad reply magic");
  if (!agreed_.structured || extended != agreed_.extended)
    broken("a form of reply that was not agreed on");
  const size_t bytes = extended ? ChunkHeader::kExtendedBytes : ChunkHeader::kBytes;
  co_await read(all.subspan(SimpleReply::kBytes, bytes - SimpleReply::kBytes));
  const ChunkHeader header = ChunkHeader::decode(all.first(bytes), extended);
  Operation& operation = find(header.cookie);
  if (extended && header.offset != operation.offset)
    broken("a reply with the offset of another request");
  co_await receive_chunk(header, operation);
  if (header.done()) complete(operation);
}

Task<void> Connection::receive_simple(ByteSpan head, Operation& operation) {
  const SimpleReply reply = SimpleReply::decode(head);
  if (agreed_.structured && operation.command == Command::kRead)
    broken("a simple reply to a read after structured replies were agreed on");
  if (operation.command == Command::kBlockStatus && reply.error == 0)
    broken("a simple reply to a block status");
  if (reply.error != 0) {
    operation.error = from_wire_error(reply.error);
    co_return;
  }
  if (operation.command != Command::kRead) co_return;
  co_await read(operation.out);
  cover(operation, operation.offset, operation.offset + operation.length);
}

Task<void> Connection::receive_chunk(const ChunkHeader& header, Operation& operation) {
  switch (header.type) {
    case Chunk::kNone:
      if (header.length != 0 || !header.done())
        broken("an empty chunk with data or without an end");
      co_return;
    case Chunk::kOffsetData:
      co_await receive_data(header, operation);
      co_return;
    case Chunk::kOffsetHole:
      co_await receive_hole(header, operation);
      co_return;
    case Chunk::kBlockStatus:
    case Chunk::kBlockStatusExt:
      co_await receive_status(header, operation);
      co_return;
    case Chunk::kError:
    case Chunk::kErrorOffset:
      co_await receive_error(header, operation);
      co_return;
  }
  // Kinds of error may be added to the protocol.
  if ((static_cast<uint16_t>(header.type) & 0x8000) == 0)
    broken(fmt::format("an unknown chunk of type {}", static_cast<uint16_t>(header.type)));
  co_await receive_error(header, operation);
}

Task<void> Connection::receive_data(const ChunkHeader& header, Operation& operation) {
  if (operation.command != Command::kRead) broken("data for a request that is not a read");
  if (header.length <= 8) broken("a data chunk without data");
  std::array<std::byte, 8> raw;
  co_await read(raw);
  const auto offset = load_be<uint64_t>(raw, 0);
  const uint64_t length = header.length - 8;
  if (!inside(operation, offset, length)) broken("data outside of the range that was read");
  cover(operation, offset, offset + length);
  co_await read(operation.out.subspan(offset - operation.offset, length));
}

Task<void> Connection::receive_hole(const ChunkHeader& header, Operation& operation) {
  if (operation.command != Command::kRead) broken("a hole for a request that is not a read");
  if (header.length != HolePayload::kBytes) broken("a hole chunk of a wrong size");
  std::array<std::byte, HolePayload::kBytes> raw;
  co_await read(raw);
  const HolePayload hole = HolePayload::decode(raw);
  if (!inside(operation, hole.offset, hole.length))
    broken("a hole outside of the range that was read");
  cover(operation, hole.offset, hole.offset + hole.length);
  std::memset(operation.out.data() + (hole.offset - operation.offset), 0, hole.length);
}

Task<void> Connection::receive_status(const ChunkHeader& header, Operation& operation) {
  const bool extended = header.type == Chunk::kBlockStatusExt;
  if (operation.command != Command::kBlockStatus || extended != agreed_.extended)
    broken("a block status that was not asked for");
  if (operation.status_seen) broken("two block status chunks for one context");
  if (header.length > StatusPayload::kMaxExtents * 16 + 8)
    broken(fmt::format("a block status of {} bytes", header.length));
  Bytes raw(header.length);
  co_await read(raw);
  StatusPayload payload = StatusPayload::decode(raw, extended);
  if (payload.context != agreed_.context)
    broken("the block status of a context that was not asked for");
  operation.status_seen = true;
  operation.extents = std::move(payload.extents);
}

Task<void> Connection::receive_error(const ChunkHeader& header, Operation& operation) {
  if (header.length < 6 || header.length > kMostErrorBytes)
    broken(fmt::format("an error chunk of {} bytes", header.length));
  Bytes raw(header.length);
  co_await read(raw);
  const ErrorPayload payload = ErrorPayload::decode(raw, header.type);
  if (payload.offset && !inside(operation, *payload.offset, 0))
    broken("an error outside of the request's range");
  if (operation.error != 0) co_return;
  operation.error = from_wire_error(payload.error);
  operation.error_text = printable(payload.text, kMaxString);
}

Task<void> Connection::close() {
  shut();
  if (!lost()) {
    try {
      Bytes goodbye;
      Request request;
      request.command = Command::kDisconnect;
      request.encode(goodbye, agreed_.extended);
      stream().set_deadline(std::chrono::steady_clock::now() + std::chrono::seconds(1));
      auto guard = co_await sending().lock();
      co_await stream().write_all(ByteSpan(goodbye));
      co_await stream().finish();
    } catch (const Error&) {
      // How the other side takes it does not matter any more.
    }
  }
  co_await end();
}

}  // namespace cairn::nbd::client
