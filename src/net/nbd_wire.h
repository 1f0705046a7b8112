#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"

// What NBD puts on the wire, as pure values: each decode() takes the bytes of exactly one item,
// checks every length before it uses it and throws kInvalid that says what is wrong; encode()
// appends. All integers are big-endian. Nothing here does I/O.
namespace cairn::nbd {

inline constexpr uint16_t kPort = 10809;
inline constexpr uint64_t kGreetingMagic = 0x4e42444d41474943;
inline constexpr uint64_t kOptionMagic = 0x49484156454f5054;
inline constexpr uint64_t kOldstyleMagic = 0x0000420281861253;
inline constexpr uint64_t kOptionReplyMagic = 0x0003e889045565a9;
inline constexpr uint32_t kRequestMagic = 0x25609513;
inline constexpr uint32_t kExtendedRequestMagic = 0x21e41c71;
inline constexpr uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr uint32_t kStructuredReplyMagic = 0x668e33ef;
inline constexpr uint32_t kExtendedReplyMagic = 0x6e8a278c;

inline constexpr size_t kMaxString = 4096;             // names, descriptions, texts
inline constexpr uint32_t kMaxOptionBytes = 32 << 20;  // data of one option or option reply
inline constexpr uint32_t kMaxPayload = 32 << 20;      // what every peer must take

// Handshake flags (server) and client flags.
inline constexpr uint16_t kFixedNewstyle = 1 << 0;
inline constexpr uint16_t kNoZeroes = 1 << 1;

enum class Option : uint32_t {
  kExportName = 1,
  kAbort = 2,
  kList = 3,
  kStartTls = 5,
  kInfo = 6,
  kGo = 7,
  kStructuredReply = 8,
  kListMetaContext = 9,
  kSetMetaContext = 10,
  kExtendedHeaders = 11,
};

enum class OptionReply : uint32_t {
  kAck = 1,
  kServer = 2,
  kInfo = 3,
  kMetaContext = 4,
  kErrUnsup = 0x80000001,
  kErrPolicy = 0x80000002,
  kErrInvalid = 0x80000003,
  kErrPlatform = 0x80000004,
  kErrTlsRequired = 0x80000005,
  kErrUnknown = 0x80000006,
  kErrShutdown = 0x80000007,
  kErrBlockSizeRequired = 0x80000008,
  kErrTooBig = 0x80000009,
  kErrExtHeaderRequired = 0x8000000a,
};
inline bool is_error(OptionReply type) { return (static_cast<uint32_t>(type) >> 31) != 0; }

enum class Info : uint16_t { kExport = 0, kName = 1, kDescription = 2, kBlockSize = 3 };

enum class Command : uint16_t {
  kRead = 0,
  kWrite = 1,
  kDisconnect = 2,
  kFlush = 3,
  kTrim = 4,
  kCache = 5,
  kWriteZeroes = 6,
  kBlockStatus = 7,
  kResize = 8,
};

// Command flags.
inline constexpr uint16_t kCmdFua = 1 << 0;
inline constexpr uint16_t kCmdNoHole = 1 << 1;
inline constexpr uint16_t kCmdDf = 1 << 2;
inline constexpr uint16_t kCmdReqOne = 1 << 3;
inline constexpr uint16_t kCmdFastZero = 1 << 4;
inline constexpr uint16_t kCmdPayloadLen = 1 << 5;

// Transmission flags.
inline constexpr uint16_t kHasFlags = 1 << 0;
inline constexpr uint16_t kReadOnly = 1 << 1;
inline constexpr uint16_t kSendFlush = 1 << 2;
inline constexpr uint16_t kSendFua = 1 << 3;
inline constexpr uint16_t kRotational = 1 << 4;
inline constexpr uint16_t kSendTrim = 1 << 5;
inline constexpr uint16_t kSendWriteZeroes = 1 << 6;
inline constexpr uint16_t kSendDf = 1 << 7;
inline constexpr uint16_t kMultiConn = 1 << 8;
inline constexpr uint16_t kSendResize = 1 << 9;
inline constexpr uint16_t kSendCache = 1 << 10;
inline constexpr uint16_t kSendFastZero = 1 << 11;
inline constexpr uint16_t kBlockStatusPayload = 1 << 12;

// Reply chunks.
enum class Chunk : uint16_t {
  kNone = 0,
  kOffsetData = 1,
  kOffsetHole = 2,
  kBlockStatus = 5,
  kBlockStatusExt = 6,
  kError = 0x8001,
  kErrorOffset = 0x8002,
};
inline constexpr uint16_t kChunkDone = 1 << 0;

// base:allocation and qemu:dirty-bitmap.
inline constexpr uint32_t kStateHole = 1 << 0;
inline constexpr uint32_t kStateZero = 1 << 1;
inline constexpr uint32_t kStateDirty = 1 << 0;

// Error numbers on the wire. A server's answer for errno, and back (unknown values are EINVAL).
uint32_t to_wire_error(int error);
int from_wire_error(uint32_t error);

// Names for messages: "go", "starttls", …; "unknown" otherwise.
std::string_view name_of(Option option);
std::string_view name_of(OptionReply reply);
std::string_view name_of(Command command);
// The words of `qemu-nbd -L` for the bits of transmission FLAGS, in their order.
std::vector<std::string_view> flag_words(uint16_t flags);
// TEXT from a peer as it may be shown: control characters replaced, cut at MOST bytes ("…" added).
std::string printable(std::string_view text, size_t most = 256);

using Bytes = std::vector<std::byte>;

// --- handshake ---

struct Greeting {
  static constexpr size_t kBytes = 18;
  uint16_t flags = 0;
  void encode(Bytes& out) const;
  // Of the 18 bytes of a newstyle server.
  static Greeting decode(ByteSpan bytes);
  // Whether the first 16 bytes begin an oldstyle greeting; throws when they begin neither.
  static bool is_oldstyle(ByteSpan first16);
};

// What follows the first 16 bytes of an oldstyle greeting.
struct OldstyleExport {
  static constexpr size_t kBytes = 136;
  uint64_t size = 0;
  uint16_t flags = 0;
  static OldstyleExport decode(ByteSpan bytes);
};

struct OptionHeader {
  static constexpr size_t kBytes = 16;
  Option option{};
  uint32_t length = 0;
  void encode(Bytes& out) const;
  static OptionHeader decode(ByteSpan bytes);
};

struct OptionReplyHeader {
  static constexpr size_t kBytes = 20;
  Option option{};
  OptionReply type{};
  uint32_t length = 0;
  // What it means that a server answered so, and said TEXT.
  Error refusal(const std::string& text) const;
  void encode(Bytes& out) const;
  static OptionReplyHeader decode(ByteSpan bytes);
};

// Data of INFO and GO.
struct GoRequest {
  std::string name;
  std::vector<uint16_t> infos;
  bool asks_for(Info info) const;
  void encode(Bytes& out) const;
  static GoRequest decode(ByteSpan bytes);
};

// Data of LIST_META_CONTEXT and SET_META_CONTEXT. Queries that are too long to mean anything are
// left out; `too_many` says that more than kMaxQueries were given.
struct MetaContextRequest {
  static constexpr size_t kMaxQueries = 1024;
  std::string name;
  std::vector<std::string> queries;
  uint32_t count = 0;  // as the client said it
  bool too_many = false;
  void encode(Bytes& out) const;
  static MetaContextRequest decode(ByteSpan bytes);
};

// Reply data of META_CONTEXT.
struct MetaContextReply {
  uint32_t id = 0;
  std::string name;
  void encode(Bytes& out) const;
  static MetaContextReply decode(ByteSpan bytes);
};

// Reply data of SERVER.
struct ServerReply {
  std::string name;
  std::string description;
  void encode(Bytes& out) const;
  static ServerReply decode(ByteSpan bytes);
};

// Reply data of INFO, by type; the reply begins with the type.
struct ExportInfo {
  static constexpr size_t kBytes = 12;
  uint64_t size = 0;
  uint16_t flags = 0;
  void encode(Bytes& out) const;
  static ExportInfo decode(ByteSpan bytes);
};
struct BlockSizeInfo {
  static constexpr size_t kBytes = 14;
  uint32_t minimum = 1;
  uint32_t preferred = 4096;
  uint32_t maximum = kMaxPayload;
  void encode(Bytes& out) const;
  // Also checks the rules for the three.
  static BlockSizeInfo decode(ByteSpan bytes);
};
void encode_text_info(Bytes& out, Info type, std::string_view text);

// --- transmission ---

struct Request {
  static constexpr size_t kBytes = 28;
  static constexpr size_t kExtendedBytes = 32;
  uint16_t flags = 0;
  Command command{};
  uint64_t cookie = 0;
  uint64_t offset = 0;
  uint64_t length = 0;
  void encode(Bytes& out, bool extended) const;
  // Throws when the magic is not that of the negotiated form.
  static Request decode(ByteSpan bytes, bool extended);
};

struct SimpleReply {
  static constexpr size_t kBytes = 16;
  uint32_t error = 0;
  uint64_t cookie = 0;
  void encode(Bytes& out) const;
  static SimpleReply decode(ByteSpan bytes);
};

struct ChunkHeader {
  static constexpr size_t kBytes = 20;
  static constexpr size_t kExtendedBytes = 32;
  uint16_t flags = 0;
  Chunk type{};
  uint64_t cookie = 0;
  uint64_t offset = 0;  // extended only
  uint64_t length = 0;
  bool done() const { return (flags & kChunkDone) != 0; }
  void encode(Bytes& out, bool extended) const;
  static ChunkHeader decode(ByteSpan bytes, bool extended);
};

// Payload of OFFSET_HOLE.
struct HolePayload {
  static constexpr size_t kBytes = 12;
  uint64_t offset = 0;
  uint32_t length = 0;
  void encode(Bytes& out) const;
  static HolePayload decode(ByteSpan bytes);
};

// Payload of ERROR and ERROR_OFFSET.
struct ErrorPayload {
  uint32_t error = 0;
  std::string text;
  std::optional<uint64_t> offset;
  void encode(Bytes& out) const;
  static ErrorPayload decode(ByteSpan bytes, Chunk type);
};

struct StatusExtent {
  uint64_t length = 0;
  uint64_t flags = 0;
  bool operator==(const StatusExtent&) const = default;
};

// Payload of BLOCK_STATUS and BLOCK_STATUS_EXT.
struct StatusPayload {
  static constexpr size_t kMaxExtents = 1 << 20;
  uint32_t context = 0;
  std::vector<StatusExtent> extents;
  void encode(Bytes& out, bool extended) const;
  static StatusPayload decode(ByteSpan bytes, bool extended);
};

// Payload of an extended BLOCK_STATUS request.
struct StatusQuery {
  uint64_t length = 0;
  std::vector<uint32_t> contexts;
  void encode(Bytes& out) const;
  static StatusQuery decode(ByteSpan bytes);
};

}  // namespace cairn::nbd
