#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace cairn::ssh {

// Frames of SFTP, version 3 (draft-ietf-secsh-filexfer-02): a length, a type, mostly an id, and a
// payload; integers are big-endian, a string is its length and its bytes.
enum class FrameType : uint8_t {
  kInit = 1,
  kVersion = 2,
  kOpen = 3,
  kClose = 4,
  kRead = 5,
  kWrite = 6,
  kFstat = 8,
  kFsetstat = 10,
  kRemove = 13,
  kStatus = 101,
  kHandle = 102,
  kData = 103,
  kAttributes = 105,
  kExtended = 200,
  kExtendedReply = 201,
};

// Flags of kOpen.
inline constexpr uint32_t kOpenRead = 1, kOpenWrite = 2, kOpenCreate = 8, kOpenTruncate = 0x10;

// The codes of kStatus that mean something here.
inline constexpr uint32_t kOk = 0, kEndOfFile = 1, kFailure = 4;

// No frame that we ask for is longer (its length field not counted).
inline constexpr uint32_t kMostFrameBytes = (256 << 10) + 1024;

struct Attributes {
  std::optional<uint64_t> size;  // bytes
  std::optional<uint32_t> permissions;
  std::optional<uint32_t> modified;  // seconds
};

// A frame that is being written.
class FrameWriter {
 public:
  FrameWriter(FrameType type, std::optional<uint32_t> id);
  FrameWriter& u32(uint32_t value);
  FrameWriter& u64(uint64_t value);
  FrameWriter& string(std::string_view text);
  FrameWriter& string(ByteSpan bytes);
  // The length of a last string, whose bytes are sent after the frame.
  FrameWriter& string_after(uint32_t bytes);
  // The frame, with its length filled in. Once.
  std::vector<std::byte> finish();

 private:
  std::vector<std::byte> bytes_;
  size_t after_ = 0;  // bytes that are sent after these
};

// Reads the payload of a frame. Everything throws kIo when the frame ends before it.
class FrameReader {
 public:
  explicit FrameReader(ByteSpan bytes) : rest_(bytes) {}
  uint8_t u8();
  uint32_t u32();
  uint64_t u64();
  ByteSpan string();
  std::string text();
  Attributes attributes();
  bool empty() const { return rest_.empty(); }

 private:
  ByteSpan take(size_t bytes);
  ByteSpan rest_;
};

// What the server announced: the extensions with their data, by name. BYTES begins after the type.
// Throws kIo.
std::map<std::string, std::string> parse_version(ByteSpan bytes);

// How long frames may be, and what one may carry (`limits@openssh.com`).
struct TransferLimits {
  uint32_t read = 32 << 10;   // bytes of one kRead
  uint32_t write = 32 << 10;  // bytes of one kWrite
};
TransferLimits parse_limits(ByteSpan reply);

// The errno that stands for a status code.
int errno_of_status(uint32_t code);

}  // namespace cairn::ssh
