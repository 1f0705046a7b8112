// The messages of the vhost-user protocol and the structures of virtio block devices, as the
// vhost-user protocol document and virtio 1.2 (5.2) lay them out. Numbers are little endian: the
// peers share memory, and therefore a machine.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.h"

namespace cairn::vhost_user {

enum class MessageType : uint32_t {
  kGetFeatures = 1,
  kSetFeatures = 2,
  kSetOwner = 3,
  kResetOwner = 4,
  kSetMemTable = 5,
  kSetLogBase = 6,
  kSetLogFd = 7,
  kSetVringNum = 8,
  kSetVringAddr = 9,
  kSetVringBase = 10,
  kGetVringBase = 11,
  kSetVringKick = 12,
  kSetVringCall = 13,
  kSetVringErr = 14,
  kGetProtocolFeatures = 15,
  kSetProtocolFeatures = 16,
  kGetQueueNum = 17,
  kSetVringEnable = 18,
  kSetBackendRequestFd = 21,
  kGetConfig = 24,
  kSetConfig = 25,
  kGetInflightFd = 31,
  kSetInflightFd = 32,
  kResetDevice = 34,
  kGetMaxMemSlots = 36,
  kAddMemReg = 37,
  kRemMemReg = 38,
};

// What the device sends by itself.
inline constexpr uint32_t kConfigChangeMessage = 2;

// Bits of features.
namespace feature {
inline constexpr uint64_t kSizeMax = 1ull << 1;
inline constexpr uint64_t kSegMax = 1ull << 2;
inline constexpr uint64_t kReadOnly = 1ull << 5;
inline constexpr uint64_t kBlockSize = 1ull << 6;
inline constexpr uint64_t kFlush = 1ull << 9;
inline constexpr uint64_t kTopology = 1ull << 10;
inline constexpr uint64_t kConfigWce = 1ull << 11;
inline constexpr uint64_t kMultiQueue = 1ull << 12;
inline constexpr uint64_t kDiscard = 1ull << 13;
inline constexpr uint64_t kWriteZeroes = 1ull << 14;
inline constexpr uint64_t kNotifyOnEmpty = 1ull << 24;
inline constexpr uint64_t kLogAll = 1ull << 26;
inline constexpr uint64_t kIndirect = 1ull << 28;
inline constexpr uint64_t kEventIndex = 1ull << 29;
inline constexpr uint64_t kProtocolFeatures = 1ull << 30;
inline constexpr uint64_t kVersion1 = 1ull << 32;
}  // namespace feature

// Bits of protocol features.
namespace protocol_feature {
inline constexpr uint64_t kMultiQueue = 1ull << 0;
inline constexpr uint64_t kLogSharedMemory = 1ull << 1;
inline constexpr uint64_t kReplyAck = 1ull << 3;
inline constexpr uint64_t kBackendRequests = 1ull << 5;
inline constexpr uint64_t kConfig = 1ull << 9;
inline constexpr uint64_t kBackendSendFd = 1ull << 10;
inline constexpr uint64_t kHostNotifier = 1ull << 11;
inline constexpr uint64_t kInflight = 1ull << 12;
inline constexpr uint64_t kMemorySlots = 1ull << 15;
}  // namespace protocol_feature

struct Header {
  static constexpr size_t kBytes = 12;
  static constexpr uint32_t kVersionMask = 3, kVersion = 1, kReply = 4, kNeedReply = 8;
  uint32_t type = 0;
  uint32_t flags = 0;
  uint32_t size = 0;  // of the payload

  static Header decode(ByteSpan bytes);
  void encode(MutableByteSpan out) const;
};

// Longer payloads than that no message has.
inline constexpr uint32_t kMostPayload = 1024;
// Regions of memory that one message may name.
inline constexpr size_t kMostRegionsInMessage = 8;

struct VringState {
  uint32_t index = 0;
  uint32_t number = 0;
  static VringState decode(ByteSpan payload);
};

// Where a ring is, in addresses of the front end.
struct VringAddresses {
  static constexpr uint32_t kLog = 1;  // of flags: writes to the used ring are logged
  uint32_t index = 0;
  uint32_t flags = 0;
  uint64_t descriptors = 0;
  uint64_t used = 0;
  uint64_t available = 0;
  uint64_t log = 0;  // the used ring in the guest's memory
  static VringAddresses decode(ByteSpan payload);
};

// A stretch of the guest's memory.
struct MemoryRegion {
  static constexpr size_t kBytes = 32;
  uint64_t guest_address = 0;
  uint64_t size = 0;
  uint64_t user_address = 0;  // in the front end
  uint64_t file_offset = 0;   // in the file that came with it
  static MemoryRegion decode(ByteSpan bytes);
};
// SET_MEM_TABLE. Throws kInvalid for more than kMostRegionsInMessage.
std::vector<MemoryRegion> decode_regions(ByteSpan payload);
// ADD_MEM_REG and REM_MEM_REG.
MemoryRegion decode_single_region(ByteSpan payload);

struct LogArea {
  uint64_t size = 0;
  uint64_t offset = 0;
  static LogArea decode(ByteSpan payload);
};

// GET_CONFIG and SET_CONFIG.
struct ConfigRange {
  static constexpr size_t kHeaderBytes = 12;
  static constexpr uint32_t kMostBytes = 256;
  uint32_t offset = 0;
  uint32_t size = 0;
  uint32_t flags = 0;
  // Throws kInvalid where the payload does not hold what it says, or says more than kMostBytes.
  static ConfigRange decode(ByteSpan payload);
};

struct InflightArea {
  static constexpr size_t kBytes = 24;
  uint64_t size = 0;
  uint64_t offset = 0;
  uint16_t queues = 0;
  uint16_t queue_size = 0;
  static InflightArea decode(ByteSpan payload);
  void encode(MutableByteSpan out) const;
};

uint64_t decode_u64(ByteSpan payload);

// The configuration space of a block device (virtio 1.2, 5.2.4).
struct BlockConfig {
  static constexpr size_t kBytes = 60;
  static constexpr uint32_t kWceOffset = 32;
  static constexpr uint32_t kMostSectors = 32768;  // of a discard or a write of zeroes
  uint64_t capacity = 0;                           // sectors of 512 bytes
  uint32_t block_bytes = 512;
  bool write_cache = true;
  uint16_t queues = 1;
  void encode(MutableByteSpan out) const;
};

// Requests of a guest (virtio 1.2, 5.2.6).
enum class RequestType : uint32_t {
  kIn = 0,
  kOut = 1,
  kFlush = 4,
  kGetId = 8,
  kDiscard = 11,
  kWriteZeroes = 13,
};
struct RequestHeader {
  static constexpr size_t kBytes = 16;
  uint32_t type = 0;
  uint64_t sector = 0;
  static RequestHeader decode(ByteSpan bytes);
};
struct DiscardSegment {
  static constexpr size_t kBytes = 16;
  static constexpr uint32_t kUnmap = 1;
  uint64_t sector = 0;
  uint32_t sectors = 0;
  uint32_t flags = 0;
  static DiscardSegment decode(ByteSpan bytes);
};
enum class Status : uint8_t { kOk = 0, kIoError = 1, kUnsupported = 2 };
inline constexpr uint64_t kSectorBytes = 512;
inline constexpr size_t kIdBytes = 20;

}  // namespace cairn::vhost_user
