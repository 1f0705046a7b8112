// Disks (VDIs) of a Sheepdog cluster. wire.h and location.h are pure; a Link keeps one connection
// to a daemon alive, a Cluster has one Link for each worker, vdi.h has the operations on whole
// VDIs, and SheepdogNode is a VDI as a disk. May include src/net and what src/protocol may.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace cairn::sheepdog {

// Messages of the protocol between a client and a daemon; all integers are little-endian.

constexpr size_t kHeaderBytes = 48;
constexpr size_t kNameBytes = 256;  // of a name or a tag, padded with zeroes
constexpr size_t kLongestName = 255;
constexpr uint64_t kMaxObjects = 1 << 20;  // of a VDI
constexpr unsigned kMinShift = 20;         // of the size of an object
constexpr unsigned kMaxShift = 31;
constexpr unsigned kUsualShift = 22;
constexpr uint32_t kVdis = 1 << 24;               // IDs of VDIs are below
constexpr size_t kVdiBitmapBytes = kVdis / 8;     // the answer to READ_VDIS
constexpr uint64_t kSizeFieldOffset = 536;        // of the size in an inode
constexpr uint64_t kTagFieldOffset = kNameBytes;  // of the tag in an inode
constexpr uint64_t kIndexOffset = 4664;           // of the index in an inode

enum class Opcode : uint8_t {
  kCreateObject = 0x01,
  kReadObject = 0x02,
  kWriteObject = 0x03,
  kNewVdi = 0x11,
  kLockVdi = 0x12,
  kReleaseVdi = 0x13,
  kVdiInfo = 0x14,
  kReadVdis = 0x15,
  kFlushVdi = 0x16,
  kDeleteVdi = 0x17,
  kClusterDefault = 0x18,
};

constexpr uint16_t kFlagWrite = 0x01;  // data follows the header
constexpr uint16_t kFlagCow = 0x02;

// The daemon's answers that a client treats on their own; wire.cc has the words for all.
enum class Result : uint32_t {
  kSuccess = 0x00,
  kNoObject = 0x02,
  kVdiExists = 0x04,
  kInvalid = 0x05,
  kLocked = 0x07,
  kNoVdi = 0x08,
  kNoTag = 0x0e,
  kStartup = 0x0f,
  kReadOnly = 0x1a,
  kInodeInvalidated = 0x1d,
  kAgain = 0x8f,
  kCollecting = 0x95,
};

// Whether the same request is worth sending again a moment later.
bool is_passing(Result result);
// Whether somebody has made a snapshot of the VDI that was written.
bool is_outdated(Result result);

// Throws an error of the kind that RESULT, which is not kSuccess, stands for: WHAT, and what the
// result means.
[[noreturn]] void throw_result(Result result, const std::string& what);

// --- requests ---

struct ObjectFields {
  uint64_t object = 0;
  std::optional<uint64_t> copy_from;  // its content is there before the data are written
  uint32_t offset = 0;                // within the object
};

struct VdiFields {
  uint64_t size = 0;
  uint32_t vdi = 0;  // the base of a new one; the one that is released
  uint8_t copies = 0;
  uint8_t copy_policy = 0;
  uint8_t shift = 0;
  uint32_t snapshot = 0;
};

using Header = std::array<std::byte, kHeaderBytes>;

// Headers without ID and length of data, which set_id() and set_length() fill in.
Header object_header(Opcode opcode, const ObjectFields& fields);
Header vdi_header(Opcode opcode, const VdiFields& fields);
void set_id(Header& header, uint32_t id);
void set_length(Header& header, uint32_t bytes);
Opcode opcode_of(const Header& header);

// A name, and a tag where there is one, as they follow the header of an operation on a VDI.
std::vector<std::byte> name_data(std::string_view name);
std::vector<std::byte> name_data(std::string_view name, std::string_view tag);

// --- answers ---

struct Response {
  Opcode opcode{};
  uint32_t id = 0;
  uint32_t length = 0;  // of the data that follow
  Result result{};
  uint32_t vdi = 0;           // of operations on VDIs
  uint64_t data_offset = 0;   // of READ: where the data belong in what was asked for
  uint8_t default_shift = 0;  // of GET_CLUSTER_DEFAULT
  // Of BYTES, kHeaderBytes of them.
  static Response decode(ByteSpan bytes);
};

// --- objects ---

constexpr uint64_t data_object(uint32_t vdi, uint64_t number) {
  return uint64_t{vdi} << 32 | number;
}
constexpr uint64_t inode_object(uint32_t vdi) { return uint64_t{1} << 63 | uint64_t{vdi} << 32; }

// The description of a VDI: the first kIndexOffset bytes of its inode object.
struct Inode {
  std::string name;  // empty: the VDI was deleted
  std::string tag;
  uint64_t snapshot_time = 0;  // seconds << 32 | nanoseconds; 0: no snapshot, but the working VDI
  uint64_t vm_clock = 0;       // ns
  uint64_t size = 0;           // bytes
  uint64_t vm_state_bytes = 0;
  uint8_t copy_policy = 0;
  uint8_t store_policy = 0;
  uint8_t copies = 0;
  uint8_t shift = 0;
  uint32_t snapshot = 0;  // its number among those of one name
  uint32_t vdi = 0;

  bool is_snapshot() const { return snapshot_time != 0; }
  uint64_t object_bytes() const { return uint64_t{1} << shift; }
  uint64_t object_count() const { return (size >> shift) + ((size & (object_bytes() - 1)) != 0); }

  // Of at least kIndexOffset bytes; nothing is checked.
  static Inode decode(ByteSpan bytes);
  // Throws kCorrupt when this cannot be the inode of VDI, or kUnsupported when its layout is
  // another one. After it the members may be calculated with.
  void check(uint32_t vdi) const;
};

// The entries of an index: by object of the disk the VDI that has it, 0 for none. Throws kCorrupt
// when one is no VDI.
std::vector<uint32_t> decode_index(ByteSpan bytes);

// --- settings of new VDIs ---

// How often, or how, the cluster keeps what is written.
struct Redundancy {
  uint8_t copies = 0;  // 0: as the cluster has it
  uint8_t policy = 0;  // of an erasure code
  // "N" copies, or "D:P" strips of data and parity. Throws kInvalid.
  static Redundancy parse(std::string_view text);
};
// The shift of an object size. Throws kInvalid unless it is a power of two of 1 MiB to 2 GiB.
uint8_t shift_of(uint64_t object_bytes);

}  // namespace cairn::sheepdog
