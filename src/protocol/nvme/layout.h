#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/error.h"

namespace cairn::nvme {

// Registers of a controller: offsets in bytes into its first memory region (BAR 0).
constexpr uint64_t kCapabilitiesAt = 0x00, kVersionAt = 0x08, kConfigurationAt = 0x14,
                   kStatusAt = 0x1c, kAdminEntriesAt = 0x24, kAdminSubmissionsAt = 0x28,
                   kAdminCompletionsAt = 0x30, kDoorbellsAt = 0x1000;

// Bits of the configuration and status registers.
constexpr uint32_t kEnable = 1, kShutDown = 1u << 14, kShutDownMask = 3u << 14;
constexpr uint32_t kReady = 1, kFatal = 2, kShutDownState = 3u << 2, kShutDownDone = 2u << 2;
// What every register reads as once the device is gone.
constexpr uint32_t kGone32 = UINT32_MAX;

constexpr size_t kCommandBytes = 64, kCompletionBytes = 16, kIdentifyBytes = 4096, kRangeBytes = 16;
constexpr unsigned kMostRanges = 256;    // of one command of dataset management
constexpr uint64_t kMostBlocks = 65536;  // of one read, write or write of zeroes
constexpr uint64_t kMostRangeBlocks = UINT32_MAX;

// The register of what a controller can do.
struct Capabilities {
  uint32_t most_entries = 0;             // of a queue
  uint64_t doorbell_bytes = 0;           // from one doorbell to the next
  std::chrono::milliseconds timeout{0};  // for becoming ready, and for the opposite
  uint64_t page_bytes = 0;               // the smallest page, which is the one used

  // Throws kIo when the device is gone, kUnsupported when it cannot be used with memory pages of
  // SYSTEM_PAGE_BYTES.
  static Capabilities decode(uint64_t bits, uint64_t system_page_bytes);
};

// What CONFIGURATION becomes for pages of PAGE_BYTES and the entries of kCommandBytes and
// kCompletionBytes, enabled.
uint32_t enabled_configuration(uint64_t page_bytes);

enum class AdminOpcode : uint8_t {
  kDeleteSubmissions = 0x00,
  kCreateSubmissions = 0x01,
  kDeleteCompletions = 0x04,
  kCreateCompletions = 0x05,
  kIdentify = 0x06,
  kSetFeatures = 0x09,
};
enum class Opcode : uint8_t {
  kFlush = 0x00,
  kWrite = 0x01,
  kRead = 0x02,
  kWriteZeroes = 0x08,
  kDatasetManagement = 0x09,
};

// An entry of a submission queue.
struct Command {
  uint8_t opcode = 0;
  uint32_t name_space = 0;
  uint64_t prp1 = 0, prp2 = 0;
  uint32_t words[6] = {};  // command dwords 10 to 15

  static constexpr size_t encoded_size = kCommandBytes;
  // Under the number ID, which its completion repeats.
  void encode(MutableByteSpan out, uint16_t id) const;
};

// Queues have numbers from 1 on; both of a pair have the same. ENTRIES: at least 2.
Command create_completions(uint16_t queue, uint32_t entries, uint64_t iova,
                           std::optional<uint16_t> vector);
Command create_submissions(uint16_t queue, uint32_t entries, uint64_t iova);
Command delete_queue(AdminOpcode opcode, uint16_t queue);
enum class Identified : uint8_t { kNamespace = 0, kController = 1 };
Command identify(Identified what, uint32_t name_space, uint64_t iova);
// Asks for PAIRS pairs of queues besides that of the administration.
Command ask_for_queues(uint16_t pairs);
// How many pairs the answer to it grants.
uint32_t granted_queues(uint32_t result);
// kRead, kWrite and kWriteZeroes: BLOCKS from FIRST on, at most kMostBlocks.
struct BlockFlags {
  bool fua = false;
  bool deallocate = false;  // of kWriteZeroes: the space may be given back
};
Command on_blocks(Opcode opcode, uint32_t name_space, uint64_t first, uint64_t blocks,
                  BlockFlags flags);
Command flush_command(uint32_t name_space);
// COUNT ranges that are written by encode_range().
Command deallocate_command(uint32_t name_space, unsigned count, uint64_t iova);
void encode_range(MutableByteSpan out, uint64_t first, uint32_t blocks);

// How a command ended.
struct Status {
  uint8_t type = 0, code = 0;
  bool do_not_retry = false;

  bool ok() const { return type == 0 && code == 0; }
  // The same command may succeed when it is sent again.
  bool passing() const;
  // Words for people: "the block address is out of range (status 0/0x80)".
  std::string text() const;
  ErrorKind kind() const;
};

// An entry of a completion queue.
struct Completion {
  uint32_t result = 0;
  uint16_t submissions_head = 0, queue = 0, command = 0;
  bool phase = false;
  Status status;

  static Completion decode(ByteSpan bytes);
};

// What a controller says of itself.
struct ControllerIdentity {
  std::string serial, model, firmware;
  uint64_t most_bytes = 0;  // of a transfer; 0: no limit
  uint32_t namespaces = 0;  // the highest number of one
  bool volatile_cache = false, write_zeroes = false, deallocates = false;

  // Throws kUnsupported when queues with our entries are not possible.
  static ControllerIdentity decode(ByteSpan bytes, uint64_t page_bytes);
};

// What a controller says of one of its disks.
struct NamespaceIdentity {
  uint64_t blocks = 0;
  uint32_t block_bytes = 0;
  bool zeroes_deallocate = false;  // writes of zeroes may give space back
  bool write_protected = false;

  uint64_t length() const { return blocks * block_bytes; }
  // Throws kInvalid when there is no such disk, kUnsupported when it has blocks that are not
  // supported.
  static NamespaceIdentity decode(ByteSpan bytes, uint64_t page_bytes);
};

}  // namespace cairn::nvme
