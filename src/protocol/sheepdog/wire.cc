#include "protocol/sheepdog/wire.h"

#include <fmt/core.h>

#include <bit>
#include <charconv>
#include <cstring>

#include "base/error.h"

namespace cairn::sheepdog {
namespace {

constexpr std::byte kVersion{0x01};

// Fields of a header: those of all messages, and those of operations on objects and on VDIs.
constexpr size_t kAtOpcode = 1, kAtFlags = 2, kAtId = 8, kAtLength = 12, kAtResult = 16;
constexpr size_t kAtObject = 16, kAtCopyFrom = 24, kAtObjectOffset = 40;
constexpr size_t kAtSize = 16, kAtBase = 24, kAtCopies = 28, kAtPolicy = 29, kAtShift = 31,
                 kAtSnapshot = 32;

struct Meaning {
  uint32_t result;
  ErrorKind kind;
  std::string_view text;
};

constexpr Meaning kMeanings[] = {
    {0x01, ErrorKind::kIo, "unknown error"},
    {0x02, ErrorKind::kIo, "there is no such object"},
    {0x03, ErrorKind::kIo, "I/O error"},
    {0x04, ErrorKind::kExists, "the VDI exists already"},
    {0x05, ErrorKind::kInvalid, "invalid parameters"},
    {0x06, ErrorKind::kIo, "system error"},
    {0x07, ErrorKind::kLocked, "the VDI is in use by another client"},
    {0x08, ErrorKind::kNotFound, "there is no such VDI"},
    {0x09, ErrorKind::kNotFound, "there is no such base VDI"},
    {0x0a, ErrorKind::kIo, "the VDI cannot be read"},
    {0x0b, ErrorKind::kIo, "the VDI cannot be written"},
    {0x0c, ErrorKind::kIo, "the base VDI cannot be read"},
    {0x0d, ErrorKind::kIo, "the base VDI cannot be written"},
    {0x0e, ErrorKind::kNotFound, "the VDI has no such snapshot"},
    {0x0f, ErrorKind::kIo, "the daemon is starting"},
    {0x10, ErrorKind::kInvalid, "the VDI is not locked"},
    {0x11, ErrorKind::kIo, "the cluster is shutting down"},
    {0x12, ErrorKind::kNoMemory, "the daemon has no memory left"},
    {0x13, ErrorKind::kNoSpace, "the maximum number of VDIs is reached"},
    {0x14, ErrorKind::kUnsupported, "the daemon has another version of the protocol"},
    {0x15, ErrorKind::kNoSpace, "no space is left in the cluster"},
    {0x16, ErrorKind::kIo, "the cluster is not formatted yet (see `dog cluster format`)"},
    {0x17, ErrorKind::kIo, "the cluster waits for nodes that are missing"},
    {0x18, ErrorKind::kIo, "the daemon failed to join the cluster"},
    {0x19, ErrorKind::kIo, "the cluster has stopped because too few nodes are left"},
    {0x1a, ErrorKind::kDenied, "the object is read-only"},
    {0x1d, ErrorKind::kIo, "the inode has changed"},
    {0x81, ErrorKind::kIo, "the epoch is an old one"},
    {0x82, ErrorKind::kIo, "the epoch is a new one"},
    {0x83, ErrorKind::kIo, "the cluster is not formatted yet (see `dog cluster format`)"},
    {0x86, ErrorKind::kIo, "network error between nodes"},
    {0x88, ErrorKind::kIo, "the buffer is too small"},
    {0x8b, ErrorKind::kUnsupported, "the daemon does not support this"},
    {0x8f, ErrorKind::kIo, "the daemon is busy"},
    {0x95, ErrorKind::kIo, "the cluster is collecting the state of its VDIs"},
};

void store_name(MutableByteSpan out, size_t offset, std::string_view name) {
  if (name.size() > kLongestName)
    invalid("the name '" + std::string(name) + "' is longer than 255 bytes");
  store_text(out, offset, name);
}

unsigned number_of(std::string_view text, const std::string& whole) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty())
    invalid("Invalid redundancy '" + whole + "': it is N copies, or D:P strips of data and parity");
  return value;
}

}  // namespace

bool is_passing(Result result) {
  return result == Result::kStartup || result == Result::kAgain || result == Result::kCollecting;
}

bool is_outdated(Result result) {
  return result == Result::kReadOnly || result == Result::kInodeInvalidated;
}

void throw_result(Result result, const std::string& what) {
  for (const Meaning& meaning : kMeanings)
    if (meaning.result == static_cast<uint32_t>(result))
      throw Error(meaning.kind, what + ": " + std::string(meaning.text));
  throw Error(ErrorKind::kIo, fmt::format("{}: the daemon answers with error {}", what,
                                          static_cast<uint32_t>(result)));
}

Header object_header(Opcode opcode, const ObjectFields& fields) {
  Header header{};
  const MutableByteSpan out(header);
  out[0] = kVersion;
  store_le<uint8_t>(out, kAtOpcode, static_cast<uint8_t>(opcode));
  unsigned flags = 0;
  if (opcode == Opcode::kCreateObject || opcode == Opcode::kWriteObject) flags |= kFlagWrite;
  if (fields.copy_from) flags |= kFlagCow;
  store_le<uint16_t>(out, kAtFlags, static_cast<uint16_t>(flags));
  store_le<uint64_t>(out, kAtObject, fields.object);
  store_le<uint64_t>(out, kAtCopyFrom, fields.copy_from.value_or(0));
  store_le<uint32_t>(out, kAtObjectOffset, fields.offset);
  return header;
}

Header vdi_header(Opcode opcode, const VdiFields& fields) {
  Header header{};
  const MutableByteSpan out(header);
  out[0] = kVersion;
  store_le<uint8_t>(out, kAtOpcode, static_cast<uint8_t>(opcode));
  const bool named = opcode == Opcode::kNewVdi || opcode == Opcode::kLockVdi ||
                     opcode == Opcode::kVdiInfo || opcode == Opcode::kDeleteVdi;
  store_le<uint16_t>(out, kAtFlags, named ? kFlagWrite : uint16_t{0});
  store_le<uint64_t>(out, kAtSize, fields.size);
  store_le<uint32_t>(out, kAtBase, fields.vdi);
  store_le<uint8_t>(out, kAtCopies, fields.copies);
  store_le<uint8_t>(out, kAtPolicy, fields.copy_policy);
  store_le<uint8_t>(out, kAtShift, fields.shift);
  store_le<uint32_t>(out, kAtSnapshot, fields.snapshot);
  return header;
}

void set_id(Header& header, uint32_t id) { store_le<uint32_t>(header, kAtId, id); }
void set_length(Header& header, uint32_t bytes) { store_le<uint32_t>(header, kAtLength, bytes); }
Opcode opcode_of(const Header& header) {
  return static_cast<Opcode>(load_le<uint8_t>(header, kAtOpcode));
}

std::vector<std::byte> name_data(std::string_view name) {
  std::vector<std::byte> data(kNameBytes);
  store_name(data, 0, name);
  return data;
}

std::vector<std::byte> name_data(std::string_view name, std::string_view tag) {
  std::vector<std::byte> data(2 * kNameBytes);
  store_name(data, 0, name);
  store_name(data, kNameBytes, tag);
  return data;
}

Response Response::decode(ByteSpan bytes) {
  return {.opcode = static_cast<Opcode>(load_le<uint8_t>(bytes, kAtOpcode)),
          .id = load_le<uint32_t>(bytes, kAtId),
          .length = load_le<uint32_t>(bytes, kAtLength),
          .result = static_cast<Result>(load_le<uint32_t>(bytes, kAtResult)),
          .vdi = load_le<uint32_t>(bytes, 24),
          .data_offset = load_le<uint64_t>(bytes, 24),
          .default_shift = load_le<uint8_t>(bytes, 22)};
}

Inode Inode::decode(ByteSpan bytes) {
  return {.name = load_text(bytes, 0, kNameBytes),
          .tag = load_text(bytes, kTagFieldOffset, kNameBytes),
          .snapshot_time = load_le<uint64_t>(bytes, 520),
          .vm_clock = load_le<uint64_t>(bytes, 528),
          .size = load_le<uint64_t>(bytes, kSizeFieldOffset),
          .vm_state_bytes = load_le<uint64_t>(bytes, 544),
          .copy_policy = load_le<uint8_t>(bytes, 552),
          .store_policy = load_le<uint8_t>(bytes, 553),
          .copies = load_le<uint8_t>(bytes, 554),
          .shift = load_le<uint8_t>(bytes, 555),
          .snapshot = load_le<uint32_t>(bytes, 556),
          .vdi = load_le<uint32_t>(bytes, 560)};
}

void Inode::check(uint32_t wanted) const {
  const auto corrupt = [&](const std::string& what) {
    throw Error(ErrorKind::kCorrupt, fmt::format("The inode of the VDI {} {}", wanted, what));
  };
  if (vdi != wanted) corrupt(fmt::format("is that of the VDI {}", vdi));
  if (store_policy != 0)
    throw Error(ErrorKind::kUnsupported,
                "The VDI '" + name + "' is a hyper volume, whose index is not supported");
  if (shift < kMinShift || shift > kMaxShift)
    corrupt(fmt::format("has objects of 2^{} bytes; 2^20 to 2^31 are possible", shift));
  if (size > kMaxObjects << shift)
    corrupt(fmt::format("has a size of {} bytes, more than its index can hold", size));
}

std::vector<uint32_t> decode_index(ByteSpan bytes) {
  std::vector<uint32_t> index(bytes.size() / 4);
  for (size_t i = 0; i < index.size(); ++i) {
    index[i] = load_le<uint32_t>(bytes, i * 4);
    if (index[i] >= kVdis)
      throw Error(
          ErrorKind::kCorrupt,
          fmt::format("An entry of the index names the VDI {}, which cannot exist", index[i]));
  }
  return index;
}

Redundancy Redundancy::parse(std::string_view text) {
  const std::string whole(text);
  const size_t colon = text.find(':');
  const unsigned first = number_of(text.substr(0, colon), whole);
  if (colon == std::string_view::npos) {
    if (first < 1 || first > 31) invalid("Invalid redundancy '" + whole + "': 1 to 31 copies");
    return {.copies = static_cast<uint8_t>(first), .policy = 0};
  }
  const unsigned parity = number_of(text.substr(colon + 1), whole);
  if (first != 2 && first != 4 && first != 8 && first != 16)
    invalid("Invalid redundancy '" + whole + "': there are 2, 4, 8 or 16 strips of data");
  if (parity < 1 || parity > 15)
    invalid("Invalid redundancy '" + whole + "': there are 1 to 15 strips of parity");
  return {.copies = static_cast<uint8_t>(first + parity),
          .policy = static_cast<uint8_t>(first / 2 << 4 | parity)};
}

uint8_t shift_of(uint64_t object_bytes) {
  if (!std::has_single_bit(object_bytes) || object_bytes < uint64_t{1} << kMinShift ||
      object_bytes > uint64_t{1} << kMaxShift)
    invalid(fmt::format("Invalid object size {}: it is a power of two of 1 MiB to 2 GiB",
                        object_bytes));
  return static_cast<uint8_t>(std::countr_zero(object_bytes));
}

}  // namespace cairn::sheepdog
