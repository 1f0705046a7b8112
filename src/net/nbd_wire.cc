#include "net/nbd_wire.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>

#include "base/arith.h"
#include "base/error.h"

namespace cairn::nbd {
namespace {

template <std::unsigned_integral T>
void put(Bytes& out, T value) {
  const size_t at = out.size();
  out.resize(at + sizeof value);
  store_be<T>(out, at, value);
}

void put_text(Bytes& out, std::string_view text) {
  const ByteSpan bytes = bytes_of(text);
  out.insert(out.end(), bytes.begin(), bytes.end());
}

void expect_size(ByteSpan bytes, size_t size, const char* what) {
  if (bytes.size() != size)
    invalid(fmt::format("{} of {} bytes, {} expected", what, bytes.size(), size));
}

// Reads a message front to back; every step is checked against what is left.
class Reader {
 public:
  Reader(ByteSpan bytes, const char* what) : bytes_(bytes), what_(what) {}
  template <std::unsigned_integral T>
  T number() {
    need(sizeof(T));
    const T value = load_be<T>(bytes_, at_);
    at_ += sizeof(T);
    return value;
  }
  std::string_view text(uint64_t length) {
    need(length);
    const auto* begin = reinterpret_cast<const char*>(bytes_.data() + at_);
    at_ += length;
    return {begin, static_cast<size_t>(length)};
  }
  size_t left() const { return bytes_.size() - at_; }
  void finish() const {
    if (left() != 0) invalid(std::string(what_) + " is longer than its parts");
  }

 private:
  void need(uint64_t length) const {
    if (length > left()) invalid(std::string(what_) + " ends before its last part");
  }
  ByteSpan bytes_;
  const char* what_;
  size_t at_ = 0;
};

std::string checked_name(std::string_view name, const char* what) {
  if (name.size() > kMaxString) invalid(std::string(what) + " is longer than 4096 bytes");
  if (name.find('\0') != std::string_view::npos) invalid(std::string(what) + " contains a NUL");
  return std::string(name);
}

}  // namespace

void Greeting::encode(Bytes& out) const {
  put(out, kGreetingMagic);
  put(out, kOptionMagic);
  put(out, flags);
}

bool Greeting::is_oldstyle(ByteSpan first16) {
  const auto wrong = [](std::string_view which, uint64_t magic) {
    char text[64];
    std::snprintf(text, sizeof text, "Bad %.*s magic received: 0x%016llx",
                  static_cast<int>(which.size()), which.data(),
                  static_cast<unsigned long long>(magic));
    return Error(ErrorKind::kInvalid, text);
  };
  const auto initial = load_be<uint64_t>(first16, 0);
  if (initial != kGreetingMagic) throw wrong("initial", initial);
  const auto magic = load_be<uint64_t>(first16, 8);
  if (magic != kOptionMagic && magic != kOldstyleMagic) throw wrong("server", magic);
  return magic == kOldstyleMagic;
}

Greeting Greeting::decode(ByteSpan bytes) {
  expect_size(bytes, kBytes, "greeting");
  if (is_oldstyle(bytes.first(16))) invalid("oldstyle greeting");
  return {.flags = load_be<uint16_t>(bytes, 16)};
}

OldstyleExport OldstyleExport::decode(ByteSpan bytes) {
  expect_size(bytes, kBytes, "oldstyle export");
  const auto flags = load_be<uint32_t>(bytes, 8);
  if (flags >> 16 != 0) invalid("Unexpected export flags in an oldstyle greeting");
  return {.size = load_be<uint64_t>(bytes, 0), .flags = static_cast<uint16_t>(flags)};
}

void OptionHeader::encode(Bytes& out) const {
  put(out, kOptionMagic);
  put(out, static_cast<uint32_t>(option));
  put(out, length);
}

OptionHeader OptionHeader::decode(ByteSpan bytes) {
  expect_size(bytes, kBytes, "option header");
  if (load_be<uint64_t>(bytes, 0) != kOptionMagic) invalid("Bad option magic");
  return {.option = static_cast<Option>(load_be<uint32_t>(bytes, 8)),
          .length = load_be<uint32_t>(bytes, 12)};
}

void OptionReplyHeader::encode(Bytes& out) const {
  put(out, kOptionReplyMagic);
  put(out, static_cast<uint32_t>(option));
  put(out, static_cast<uint32_t>(type));
  put(out, length);
}

OptionReplyHeader OptionReplyHeader::decode(ByteSpan bytes) {
  expect_size(bytes, kBytes, "option reply header");
  if (load_be<uint64_t>(bytes, 0) != kOptionReplyMagic) invalid("Unexpected option reply magic");
  return {.option = static_cast<Option>(load_be<uint32_t>(bytes, 8)),
          .type = static_cast<OptionReply>(load_be<uint32_t>(bytes, 12)),
          .length = load_be<uint32_t>(bytes, 16)};
}

bool GoRequest::asks_for(Info info) const {
  return std::find(infos.begin(), infos.end(), static_cast<uint16_t>(info)) != infos.end();
}

void GoRequest::encode(Bytes& out) const {
  put(out, static_cast<uint32_t>(name.size()));
  put_text(out, name);
  put(out, static_cast<uint16_t>(infos.size()));
  for (const uint16_t info : infos) put(out, info);
}

GoRequest GoRequest::decode(ByteSpan bytes) {
  Reader reader(bytes, "request for an export");
  GoRequest request;
  const auto length = reader.number<uint32_t>();
  request.name = checked_name(reader.text(length), "export name");
  const auto count = reader.number<uint16_t>();
  if (reader.left() != size_t{count} * 2) invalid("information list does not fit its count");
  request.infos.reserve(count);
  for (unsigned i = 0; i < count; ++i) request.infos.push_back(reader.number<uint16_t>());
  return request;
}

void MetaContextRequest::encode(Bytes& out) const {
  put(out, static_cast<uint32_t>(name.size()));
  put_text(out, name);
  put(out, static_cast<uint32_t>(queries.size()));
  for (const std::string& query : queries) {
    put(out, static_cast<uint32_t>(query.size()));
    put_text(out, query);
  }
}

MetaContextRequest MetaContextRequest::decode(ByteSpan bytes) {
  Reader reader(bytes, "request for contexts");
  MetaContextRequest request;
  const auto length = reader.number<uint32_t>();
  request.name = checked_name(reader.text(length), "export name");
  request.count = reader.number<uint32_t>();
  // Each query takes at least its length: a count that cannot fit is known before the loop.
  if (uint64_t{request.count} * 4 > reader.left()) invalid("query list does not fit its count");
  for (uint32_t i = 0; i < request.count; ++i) {
    const auto bytes_of_query = reader.number<uint32_t>();
    const std::string_view query = reader.text(bytes_of_query);
    if (query.size() > kMaxString) continue;
    if (request.queries.size() < kMaxQueries)
      request.queries.emplace_back(query);
    else
      request.too_many = true;
  }
  reader.finish();
  return request;
}

void MetaContextReply::encode(Bytes& out) const {
  put(out, id);
  put_text(out, name);
}

MetaContextReply MetaContextReply::decode(ByteSpan bytes) {
  Reader reader(bytes, "context reply");
  MetaContextReply reply;
  reply.id = reader.number<uint32_t>();
  if (reader.left() == 0) invalid("context reply without a name");
  reply.name = checked_name(reader.text(reader.left()), "context name");
  return reply;
}

void ServerReply::encode(Bytes& out) const {
  put(out, static_cast<uint32_t>(name.size()));
  put_text(out, name);
  put_text(out, description);
}

ServerReply ServerReply::decode(ByteSpan bytes) {
  Reader reader(bytes, "list entry");
  ServerReply reply;
  const auto length = reader.number<uint32_t>();
  reply.name = checked_name(reader.text(length), "export name");
  reply.description = reader.text(std::min(reader.left(), kMaxString));
  return reply;
}

void ExportInfo::encode(Bytes& out) const {
  put(out, static_cast<uint16_t>(Info::kExport));
  put(out, size);
  put(out, flags);
}

ExportInfo ExportInfo::decode(ByteSpan bytes) {
  expect_size(bytes, kBytes, "export information");
  return {.size = load_be<uint64_t>(bytes, 2), .flags = load_be<uint16_t>(bytes, 10)};
}

void BlockSizeInfo::encode(Bytes& out) const {
  put(out, static_cast<uint16_t>(Info::kBlockSize));
  put(out, minimum);
  put(out, preferred);
  put(out, maximum);
}

BlockSizeInfo BlockSizeInfo::decode(ByteSpan bytes) {
  expect_size(bytes, kBytes, "block size information");
  const BlockSizeInfo info{.minimum = load_be<uint32_t>(bytes, 2),
                           .preferred = load_be<uint32_t>(bytes, 6),
                           .maximum = load_be<uint32_t>(bytes, 10)};
  if (!is_power_of_two(info.minimum))
    invalid(fmt::format("server requested minimum block size {} that is not a power of two",
                        info.minimum));
  if (!is_power_of_two(info.preferred) || info.preferred < info.minimum)
    invalid(fmt::format("server requested preferred block size {} that does not fit its minimum {}",
                        info.preferred, info.minimum));
  if (info.maximum < info.minimum)
    invalid(fmt::format("server requested maximum block size {} below its minimum {}", info.maximum,
                        info.minimum));
  return info;
}

void encode_text_info(Bytes& out, Info type, std::string_view text) {
  put(out, static_cast<uint16_t>(type));
  put_text(out, text);
}

void Request::encode(Bytes& out, bool extended) const {
  put(out, extended ? kExtendedRequestMagic : kRequestMagic);
  put(out, flags);
  put(out, static_cast<uint16_t>(command));
  put(out, cookie);
  put(out, offset);
  if (extended)
    put(out, length);
  else
    put(out, static_cast<uint32_t>(length));
}

Request Request::decode(ByteSpan bytes, bool extended) {
  expect_size(bytes, extended ? kExtendedBytes : kBytes, "request");
  if (load_be<uint32_t>(bytes, 0) != (extended ? kExtendedRequestMagic : kRequestMagic))
    invalid("Bad request magic");
  Request request;
  request.flags = load_be<uint16_t>(bytes, 4);
  request.command = static_cast<Command>(load_be<uint16_t>(bytes, 6));
  request.cookie = load_be<uint64_t>(bytes, 8);
  request.offset = load_be<uint64_t>(bytes, 16);
  request.length = extended ? load_be<uint64_t>(bytes, 24) : load_be<uint32_t>(bytes, 24);
  return request;
}

void SimpleReply::encode(Bytes& out) const {
  put(out, kSimpleReplyMagic);
  put(out, error);
  put(out, cookie);
}

SimpleReply SimpleReply::decode(ByteSpan bytes) {
  expect_size(bytes, kBytes, "simple reply");
  if (load_be<uint32_t>(bytes, 0) != kSimpleReplyMagic) invalid("Bad reply magic");
  return {.error = load_be<uint32_t>(bytes, 4), .cookie = load_be<uint64_t>(bytes, 8)};
}

void ChunkHeader::encode(Bytes& out, bool extended) const {
  put(out, extended ? kExtendedReplyMagic : kStructuredReplyMagic);
  put(out, flags);
  put(out, static_cast<uint16_t>(type));
  put(out, cookie);
  if (extended) {
    put(out, offset);
    put(out, length);
  } else {
    put(out, static_cast<uint32_t>(length));
  }
}

ChunkHeader ChunkHeader::decode(ByteSpan bytes, bool extended) {
  expect_size(bytes, extended ? kExtendedBytes : kBytes, "reply chunk header");
  if (load_be<uint32_t>(bytes, 0) != (extended ? kExtendedReplyMagic : kStructuredReplyMagic))
    invalid("Bad reply chunk magic");
  ChunkHeader header;
  header.flags = load_be<uint16_t>(bytes, 4);
  header.type = static_cast<Chunk>(load_be<uint16_t>(bytes, 6));
  header.cookie = load_be<uint64_t>(bytes, 8);
  if (extended) header.offset = load_be<uint64_t>(bytes, 16);
  header.length = extended ? load_be<uint64_t>(bytes, 24) : load_be<uint32_t>(bytes, 16);
  return header;
}

void HolePayload::encode(Bytes& out) const {
  put(out, offset);
  put(out, length);
}

HolePayload HolePayload::decode(ByteSpan bytes) {
  expect_size(bytes, kBytes, "hole chunk");
  const HolePayload hole{.offset = load_be<uint64_t>(bytes, 0),
                         .length = load_be<uint32_t>(bytes, 8)};
  if (hole.length == 0) invalid("hole chunk of no bytes");
  return hole;
}

void ErrorPayload::encode(Bytes& out) const {
  const std::string_view shown = std::string_view(text).substr(0, kMaxString);
  put(out, error);
  put(out, static_cast<uint16_t>(shown.size()));
  put_text(out, shown);
  if (offset) put(out, *offset);
}

ErrorPayload ErrorPayload::decode(ByteSpan bytes, Chunk type) {
  Reader reader(bytes, "error chunk");
  ErrorPayload payload;
  payload.error = reader.number<uint32_t>();
  if (payload.error == 0) invalid("error chunk without an error");
  const auto length = reader.number<uint16_t>();
  payload.text = reader.text(length).substr(0, kMaxString);
  if (type == Chunk::kErrorOffset) payload.offset = reader.number<uint64_t>();
  // Other kinds of error may carry more than is understood here.
  if (type == Chunk::kError || type == Chunk::kErrorOffset) reader.finish();
  return payload;
}

void StatusPayload::encode(Bytes& out, bool extended) const {
  out.reserve(out.size() + 8 + extents.size() * (extended ? 16 : 8));
  put(out, context);
  if (extended) put(out, static_cast<uint32_t>(extents.size()));
  for (const StatusExtent& extent : extents) {
    if (extended) {
      put(out, extent.length);
      put(out, extent.flags);
    } else {
      put(out, static_cast<uint32_t>(extent.length));
      put(out, static_cast<uint32_t>(extent.flags));
    }
  }
}

StatusPayload StatusPayload::decode(ByteSpan bytes, bool extended) {
  Reader reader(bytes, "block status chunk");
  StatusPayload payload;
  payload.context = reader.number<uint32_t>();
  const size_t each = extended ? 16 : 8;
  uint64_t count = 0;
  if (extended)
    count = reader.number<uint32_t>();
  else
    count = reader.left() / each;
  if (count == 0) invalid("block status chunk without an extent");
  if (count > kMaxExtents || reader.left() != count * each)
    invalid("block status chunk does not fit its count");
  payload.extents.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    StatusExtent extent;
    if (extended) {
      extent.length = reader.number<uint64_t>();
      extent.flags = reader.number<uint64_t>();
    } else {
      extent.length = reader.number<uint32_t>();
      extent.flags = reader.number<uint32_t>();
    }
    if (extent.length == 0) invalid("block status extent of no bytes");
    payload.extents.push_back(extent);
  }
  return payload;
}

void StatusQuery::encode(Bytes& out) const {
  put(out, length);
  for (const uint32_t id : contexts) put(out, id);
}

StatusQuery StatusQuery::decode(ByteSpan bytes) {
  Reader reader(bytes, "block status query");
  StatusQuery query;
  query.length = reader.number<uint64_t>();
  if (reader.left() % 4 != 0) invalid("block status query does not end with a context");
  query.contexts.reserve(reader.left() / 4);
  while (reader.left() != 0) query.contexts.push_back(reader.number<uint32_t>());
  return query;
}

}  // namespace cairn::nbd
