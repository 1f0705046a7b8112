#include <algorithm>
#include <cerrno>

#include "base/arith.h"
#include "base/error.h"
#include "export/nbd/session.h"

namespace cairn::nbd::server {
namespace {

// Zero runs of this size and above are sent as holes.
constexpr size_t kHoleUnit = 4096;
// A reply to one read has at most this many chunks.
constexpr size_t kMostChunks = 256;
// Long requests without payload are done in pieces, so that a server that is to end, or a client
// that has gone, does not keep them running.
constexpr uint64_t kPieceBytes = uint64_t{256} << 20;
constexpr size_t kMostExtents = 65536;

uint16_t allowed_flags(Command command) {
  switch (command) {
    case Command::kRead:
      return kCmdFua | kCmdDf;
    case Command::kWrite:
      return kCmdFua | kCmdPayloadLen;
    case Command::kWriteZeroes:
      return kCmdFua | kCmdNoHole | kCmdFastZero;
    case Command::kBlockStatus:
      return kCmdFua | kCmdReqOne | kCmdPayloadLen;
    default:
      return kCmdFua;
  }
}

bool changes(Command command) {
  return command == Command::kWrite || command == Command::kTrim ||
         command == Command::kWriteZeroes;
}

}  // namespace

Session::Refusal Session::validate(const Request& request, bool with_query) const {
  if (server_.stopping()) return {ESHUTDOWN, "the server is shutting down"};
  const Command command = request.command;
  if (command > Command::kBlockStatus) return {EINVAL, "unsupported command"};
  uint16_t allowed = allowed_flags(command);
  if (!chunked()) allowed &= static_cast<uint16_t>(~kCmdDf);
  if (!agreement_.extended) allowed &= static_cast<uint16_t>(~kCmdPayloadLen);
  if ((request.flags & ~allowed) != 0) return {EINVAL, "unsupported flags"};
  if (command == Command::kFlush) return {};
  if (changes(command) && !export_.writable()) return {EPERM, "Export is read-only"};
  const bool payload_is_query = command == Command::kBlockStatus && with_query;
  const bool carries =
      command == Command::kRead || command == Command::kWrite || command == Command::kCache;
  if (carries && request.length > sizes_.maximum)
    return {EINVAL, "request is longer than the longest block"};
  if (!payload_is_query) {
    const uint64_t size = export_.size();
    if (request.offset > size || request.length > size - request.offset)
      return {command == Command::kWrite || command == Command::kWriteZeroes ? ENOSPC : EINVAL,
              "request extends past the end of the export"};
  }
  if (command == Command::kBlockStatus) {
    if (agreement_.contexts.empty()) return {EINVAL, "no metadata context was negotiated"};
    if (!payload_is_query && request.length == 0) return {EINVAL, "needs a length"};
  }
  return {};
}

Task<void> Session::perform(Job& job) {
  const Request& request = job.request;
  const bool fua = (request.flags & kCmdFua) != 0;
  const uint64_t at = export_.in_node(request.offset);
  switch (request.command) {
    case Command::kRead:
      co_await read(job);
      co_return;
    case Command::kWrite: {
      const ByteSpan in = job.payload.span().first(request.length);
      const WriteFlags flags{.fua = fua};
      if (!in.empty()) co_await node_.write(at, in, flags);
      connection_.bytes_written.fetch_add(in.size(), std::memory_order_relaxed);
      break;
    }
    case Command::kFlush:
      co_await node_.flush();
      break;
    case Command::kTrim:
      co_await trim(request);
      if (fua) co_await node_.flush();
      break;
    case Command::kWriteZeroes:
      co_await write_zeroes(request);
      if (fua) co_await node_.flush();
      break;
    case Command::kCache:
      co_await node_.prefetch(at, request.length);
      break;
    case Command::kBlockStatus:
      co_await block_status(job);
      co_return;
    default:
      break;
  }
  reply_ok(job);
}

Task<void> Session::read(Job& job) {
  const Request& request = job.request;
  if (request.length == 0) {
    reply_ok(job);
    co_return;
  }
  job.payload = pool_.take(request.length);
  const MutableByteSpan out = job.payload.span().first(request.length);
  co_await node_.read(export_.in_node(request.offset), out);
  connection_.bytes_read.fetch_add(request.length, std::memory_order_relaxed);
  reply_data(job);
}

Task<void> Session::trim(const Request& request) {
  for (uint64_t done = 0; done < request.length && !broken_;) {
    const uint64_t part = std::min(kPieceBytes, request.length - done);
    co_await node_.discard(export_.in_node(request.offset + done), part);
    done += part;
  }
}

Task<void> Session::write_zeroes(const Request& request) {
  const WriteFlags flags{.fua = false,
                         .may_unmap = (request.flags & kCmdNoHole) == 0,
                         .no_fallback = (request.flags & kCmdFastZero) != 0};
  // A fast request is done as a whole or not at all.
  const uint64_t piece = flags.no_fallback ? request.length : kPieceBytes;
  for (uint64_t done = 0; done < request.length && !broken_;) {
    const uint64_t part = std::min(piece, request.length - done);
    co_await node_.write_zeroes(export_.in_node(request.offset + done), part, flags);
    done += part;
  }
}

Task<void> Session::block_status(Job& job) {
  const Request& request = job.request;
  std::vector<uint32_t> ids = agreement_.contexts;
  uint64_t length = request.length;
  if ((request.flags & kCmdPayloadLen) != 0) {
    ids = job.query.contexts;
    length = job.query.length;
    std::sort(ids.begin(), ids.end());
    const bool repeated = std::adjacent_find(ids.begin(), ids.end()) != ids.end();
    const bool known = std::includes(agreement_.contexts.begin(), agreement_.contexts.end(),
                                     ids.begin(), ids.end());
    const uint64_t size = export_.size();
    if (ids.empty() || repeated || !known || length == 0 || request.offset > size ||
        length > size - request.offset)
      throw Error(ErrorKind::kInvalid, "block status query makes no sense");
  }
  const size_t most = (request.flags & kCmdReqOne) != 0 ? 1 : kMostExtents;
  const uint64_t longest = agreement_.extended ? UINT64_MAX : align_down(UINT32_MAX, 65536);
  const Chunk type = agreement_.extended ? Chunk::kBlockStatusExt : Chunk::kBlockStatus;
  for (size_t i = 0; i < ids.size(); ++i) {
    StatusPayload payload{.context = ids[i], .extents = {}};
    payload.extents = co_await export_.status(ids[i], request.offset, length, most, longest);
    Bytes encoded;
    payload.encode(encoded, agreement_.extended);
    add_chunk(job, type, i + 1 == ids.size(), encoded.size());
    const size_t from = job.headers.size();
    job.headers.insert(job.headers.end(), encoded.begin(), encoded.end());
    add_headers(job, from);
  }
}

// --- replies ---

// What was appended to the headers since FROM is the next stretch of the reply.
void Session::add_headers(Job& job, size_t from) {
  if (!job.pieces.empty() && !job.pieces.back().payload)
    job.pieces.back().length += job.headers.size() - from;
  else
    job.pieces.push_back({.payload = false, .offset = from, .length = job.headers.size() - from});
}

void Session::add_chunk(Job& job, Chunk type, bool done, uint64_t payload_bytes) {
  const size_t from = job.headers.size();
  const ChunkHeader header{.flags = done ? kChunkDone : uint16_t{0},
                           .type = type,
                           .cookie = job.request.cookie,
                           .offset = job.request.offset,
                           .length = payload_bytes};
  header.encode(job.headers, agreement_.extended);
  add_headers(job, from);
}

void Session::reply_ok(Job& job) {
  if (agreement_.extended || (chunked() && job.request.command == Command::kRead)) {
    add_chunk(job, Chunk::kNone, true, 0);
    return;
  }
  const size_t from = job.headers.size();
  SimpleReply{.error = 0, .cookie = job.request.cookie}.encode(job.headers);
  add_headers(job, from);
}

void Session::reply_error(Job& job, int error, std::string_view text) {
  job.headers.clear();
  job.pieces.clear();
  const uint32_t number = to_wire_error(error);
  if (!chunked()) {
    const size_t from = job.headers.size();
    SimpleReply{.error = number, .cookie = job.request.cookie}.encode(job.headers);
    add_headers(job, from);
    return;
  }
  const ErrorPayload payload{
      .error = number, .text = std::string(text.substr(0, 256)), .offset = std::nullopt};
  Bytes encoded;
  payload.encode(encoded);
  add_chunk(job, Chunk::kError, true, encoded.size());
  const size_t from = job.headers.size();
  job.headers.insert(job.headers.end(), encoded.begin(), encoded.end());
  add_headers(job, from);
}

void Session::reply_data(Job& job) {
  const size_t length = job.request.length;
  if (!chunked()) {
    const size_t from = job.headers.size();
    SimpleReply{.error = 0, .cookie = job.request.cookie}.encode(job.headers);
    add_headers(job, from);
    job.pieces.push_back({.payload = true, .offset = 0, .length = length});
    return;
  }
  const bool whole = (job.request.flags & kCmdDf) != 0;
  const ByteSpan data = job.payload.span().first(length);
  size_t chunks = 0;
  for (size_t done = 0; done < length; ++chunks) {
    bool zero = false;
    size_t run = length - done;
    if (!whole && chunks < kMostChunks) run = zero_run(data.subspan(done), kHoleUnit, &zero);
    const uint64_t offset = job.request.offset + done;
    const bool last = done + run == length;
    if (zero) {
      add_chunk(job, Chunk::kOffsetHole, last, HolePayload::kBytes);
      const size_t from = job.headers.size();
      HolePayload{.offset = offset, .length = static_cast<uint32_t>(run)}.encode(job.headers);
      add_headers(job, from);
    } else {
      add_chunk(job, Chunk::kOffsetData, last, 8 + run);
      const size_t from = job.headers.size();
      job.headers.resize(from + 8);
      store_be<uint64_t>(job.headers, from, offset);
      add_headers(job, from);
      job.pieces.push_back({.payload = true, .offset = done, .length = run});
    }
    done += run;
  }
}

}  // namespace cairn::nbd::server
