#include "protocol/ssh/frames.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"

namespace cairn::ssh {
namespace {

constexpr uint32_t kProtocolVersion = 3;
constexpr uint32_t kHasSize = 1, kHasOwner = 2, kHasPermissions = 4, kHasTimes = 8,
                   kHasExtended = 0x80000000;
constexpr size_t kMostExtensions = 1000;

std::string text_of(ByteSpan bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

FrameWriter::FrameWriter(FrameType type, std::optional<uint32_t> id) : bytes_(5) {
  bytes_[4] = static_cast<std::byte>(type);
  if (id) u32(*id);
}

FrameWriter& FrameWriter::u32(uint32_t value) {
  const size_t at = bytes_.size();
  bytes_.resize(at + 4);
  store_be<uint32_t>(bytes_, at, value);
  return *this;
}

FrameWriter& FrameWriter::u64(uint64_t value) {
  const size_t at = bytes_.size();
  bytes_.resize(at + 8);
  store_be<uint64_t>(bytes_, at, value);
  return *this;
}

FrameWriter& FrameWriter::string(std::string_view text) {
  return string(ByteSpan(reinterpret_cast<const std::byte*>(text.data()), text.size()));
}

FrameWriter& FrameWriter::string(ByteSpan bytes) {
  u32(static_cast<uint32_t>(bytes.size()));
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  return *this;
}

FrameWriter& FrameWriter::string_after(uint32_t bytes) {
  after_ = bytes;
  return u32(bytes);
}

std::vector<std::byte> FrameWriter::finish() {
  store_be<uint32_t>(bytes_, 0, static_cast<uint32_t>(bytes_.size() - 4 + after_));
  return std::move(bytes_);
}

ByteSpan FrameReader::take(size_t bytes) {
  if (bytes > rest_.size())
    throw Error(ErrorKind::kIo, "the server sent a frame that is too short");
  const ByteSpan result = rest_.first(bytes);
  rest_ = rest_.subspan(bytes);
  return result;
}

uint8_t FrameReader::u8() { return static_cast<uint8_t>(take(1)[0]); }
uint32_t FrameReader::u32() { return load_be<uint32_t>(take(4), 0); }
uint64_t FrameReader::u64() { return load_be<uint64_t>(take(8), 0); }
ByteSpan FrameReader::string() { return take(u32()); }
std::string FrameReader::text() { return text_of(string()); }

Attributes FrameReader::attributes() {
  Attributes result;
  const uint32_t flags = u32();
  if (flags & kHasSize) result.size = u64();
  if (flags & kHasOwner) take(8);
  if (flags & kHasPermissions) result.permissions = u32();
  if (flags & kHasTimes) {
    take(4);
    result.modified = u32();
  }
  if (flags & kHasExtended) {
    const uint32_t count = u32();
    for (uint32_t i = 0; i < count; ++i) {
      string();
      string();
    }
  }
  return result;
}

std::map<std::string, std::string> parse_version(ByteSpan bytes) {
  FrameReader reader(bytes);
  const uint32_t version = reader.u32();
  if (version != kProtocolVersion)
    throw Error(ErrorKind::kUnsupported,
                fmt::format("the server speaks version {} of SFTP, not 3", version));
  std::map<std::string, std::string> extensions;
  while (!reader.empty() && extensions.size() < kMostExtensions) {
    std::string name = reader.text();
    extensions[std::move(name)] = reader.text();
  }
  return extensions;
}

TransferLimits parse_limits(ByteSpan reply) {
  FrameReader reader(reply);
  const uint64_t packet = reader.u64();
  const uint64_t read = reader.u64();
  const uint64_t write = reader.u64();
  // 0 means that the server does not say. A frame has some bytes besides the data.
  constexpr uint64_t kLeast = 4 << 10, kMost = 255 << 10, kBeside = 1024;
  const TransferLimits usual;
  const uint64_t room = packet > kBeside ? packet - kBeside : kMost;
  const auto fit = [&](uint64_t value, uint64_t otherwise) {
    return static_cast<uint32_t>(
        std::clamp(std::min(value == 0 ? otherwise : value, room), kLeast, kMost));
  };
  return {.read = fit(read, usual.read), .write = fit(write, usual.write)};
}

int errno_of_status(uint32_t code) {
  switch (code) {
    case 2:
    case 10:
      return ENOENT;
    case 3:
      return EACCES;
    case 6:
    case 7:
      return ENOTCONN;
    case 8:
      return ENOTSUP;
    case 9:
      return EBADF;
    case 11:
      return EEXIST;
    case 12:
      return EROFS;
    case 13:
      return ENOMEDIUM;
    default:
      return EIO;
  }
}

}  // namespace cairn::ssh
