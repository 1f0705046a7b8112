#include "protocol/nvme/layout.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>

#include "base/arith.h"

namespace cairn::nvme {
namespace {

constexpr uint64_t bits_of(uint64_t value, unsigned low, unsigned count) {
  return value >> low & ((uint64_t{1} << count) - 1);
}

constexpr unsigned kSmallestPageShift = 12;

// Padded with spaces, and sometimes with zeroes; what is not printed is left out.
std::string text_of(ByteSpan bytes, size_t offset, size_t length) {
  std::string text = load_text(bytes, offset, length);
  for (char& c : text)
    if (c < ' ' || c > '~') c = '?';
  const size_t end = text.find_last_not_of(' ');
  text.resize(end == std::string::npos ? 0 : end + 1);
  return text;
}

Command admin(AdminOpcode opcode) {
  Command command;
  command.opcode = static_cast<uint8_t>(opcode);
  return command;
}

Command on_namespace(Opcode opcode, uint32_t name_space) {
  Command command;
  command.opcode = static_cast<uint8_t>(opcode);
  command.name_space = name_space;
  return command;
}

struct StatusRow {
  uint8_t type, code;
  ErrorKind kind;
  std::string_view text;
};
constexpr StatusRow kStatuses[] = {
    {0, 0x01, ErrorKind::kUnsupported, "the controller does not know the command"},
    {0, 0x02, ErrorKind::kInvalid, "a field of the command is invalid"},
    {0, 0x04, ErrorKind::kIo, "the transfer of data failed"},
    {0, 0x05, ErrorKind::kIo, "the controller is losing power"},
    {0, 0x06, ErrorKind::kIo, "internal error of the controller"},
    {0, 0x07, ErrorKind::kIo, "the command was aborted"},
    {0, 0x08, ErrorKind::kIo, "the command was aborted, as its queue was deleted"},
    {0, 0x0b, ErrorKind::kInvalid, "there is no such namespace, or its format is invalid"},
    {0, 0x20, ErrorKind::kDenied, "the namespace is write-protected"},
    {0, 0x80, ErrorKind::kInvalid, "the block address is out of range"},
    {0, 0x81, ErrorKind::kNoSpace, "the capacity is exceeded"},
    {0, 0x82, ErrorKind::kIo, "the namespace is not ready"},
    {0, 0x83, ErrorKind::kLocked, "a reservation of another host is in the way"},
    {0, 0x84, ErrorKind::kIo, "the namespace is being formatted"},
    {2, 0x80, ErrorKind::kIo, "the medium could not be written"},
    {2, 0x81, ErrorKind::kIo, "the medium could not be read"},
    {2, 0x86, ErrorKind::kDenied, "access is denied"},
    {2, 0x87, ErrorKind::kIo, "the block is deallocated or was never written"},
};

const StatusRow* row_of(uint8_t type, uint8_t code) {
  const auto* const found =
      std::find_if(std::begin(kStatuses), std::end(kStatuses),
                   [&](const StatusRow& row) { return row.type == type && row.code == code; });
  return found == std::end(kStatuses) ? nullptr : found;
}

}  // namespace

Capabilities Capabilities::decode(uint64_t bits, uint64_t system_page_bytes) {
  if (bits == UINT64_MAX)
    throw Error(ErrorKind::kIo, "the device does not answer: its registers read as all ones");
  Capabilities result;
  result.most_entries = static_cast<uint32_t>(bits_of(bits, 0, 16)) + 1;
  result.doorbell_bytes = uint64_t{4} << bits_of(bits, 32, 4);
  result.page_bytes = uint64_t{1} << (kSmallestPageShift + bits_of(bits, 48, 4));
  // In units of 500 ms; a wrong 0 must not end every wait at once.
  const uint64_t units = std::clamp<uint64_t>(bits_of(bits, 24, 8), 1, 60);
  result.timeout = std::chrono::milliseconds(units * 500);
  if (bits_of(bits, 37, 1) == 0)
    throw Error(ErrorKind::kUnsupported, "Device doesn't support NVMe command set");
  if (result.most_entries < 2)
    throw Error(ErrorKind::kUnsupported, "the queues of the controller have no room");
  if (result.page_bytes > system_page_bytes)
    throw Error(ErrorKind::kUnsupported,
                fmt::format("the controller needs memory pages of {} bytes; those of this system "
                            "have {}",
                            result.page_bytes, system_page_bytes));
  return result;
}

uint32_t enabled_configuration(uint64_t page_bytes) {
  constexpr uint32_t kCompletionShift = std::countr_zero(kCompletionBytes);
  constexpr uint32_t kCommandShift = std::countr_zero(kCommandBytes);
  const auto page = static_cast<uint32_t>(std::countr_zero(page_bytes)) - kSmallestPageShift;
  return kCompletionShift << 20 | kCommandShift << 16 | page << 7 | kEnable;
}

void Command::encode(MutableByteSpan out, uint16_t id) const {
  const MutableByteSpan entry = out.first(kCommandBytes);
  std::fill(entry.begin(), entry.end(), std::byte{});
  store_le<uint8_t>(entry, 0, opcode);
  store_le<uint16_t>(entry, 2, id);
  store_le<uint32_t>(entry, 4, name_space);
  store_le<uint64_t>(entry, 24, prp1);
  store_le<uint64_t>(entry, 32, prp2);
  for (size_t i = 0; i < std::size(words); ++i) store_le<uint32_t>(entry, 40 + 4 * i, words[i]);
}

Command create_completions(uint16_t queue, uint32_t entries, uint64_t iova,
                           std::optional<uint16_t> vector) {
  Command command = admin(AdminOpcode::kCreateCompletions);
  command.prp1 = iova;
  command.words[0] = (entries - 1) << 16 | queue;
  command.words[1] = 1;  // physically contiguous
  if (vector) command.words[1] |= uint32_t{*vector} << 16 | 2;
  return command;
}

Command create_submissions(uint16_t queue, uint32_t entries, uint64_t iova) {
  Command command = admin(AdminOpcode::kCreateSubmissions);
  command.prp1 = iova;
  command.words[0] = (entries - 1) << 16 | queue;
  command.words[1] = uint32_t{queue} << 16 | 1;
  return command;
}

Command delete_queue(AdminOpcode opcode, uint16_t queue) {
  Command command = admin(opcode);
  command.words[0] = queue;
  return command;
}

Command identify(Identified what, uint32_t name_space, uint64_t iova) {
  Command command = admin(AdminOpcode::kIdentify);
  command.name_space = name_space;
  command.prp1 = iova;
  command.words[0] = static_cast<uint32_t>(what);
  return command;
}

Command ask_for_queues(uint16_t pairs) {
  constexpr uint32_t kNumberOfQueues = 7;
  Command command = admin(AdminOpcode::kSetFeatures);
  command.words[0] = kNumberOfQueues;
  command.words[1] = (uint32_t{pairs} - 1) << 16 | (uint32_t{pairs} - 1);
  return command;
}

uint32_t granted_queues(uint32_t result) { return std::min(result & 0xffff, result >> 16) + 1; }

Command on_blocks(Opcode opcode, uint32_t name_space, uint64_t first, uint64_t blocks,
                  BlockFlags flags) {
  Command command = on_namespace(opcode, name_space);
  command.words[0] = static_cast<uint32_t>(first);
  command.words[1] = static_cast<uint32_t>(first >> 32);
  command.words[2] = static_cast<uint32_t>(blocks - 1);
  if (flags.fua) command.words[2] |= 1u << 30;
  if (flags.deallocate) command.words[2] |= 1u << 25;
  return command;
}

Command flush_command(uint32_t name_space) { return on_namespace(Opcode::kFlush, name_space); }

Command deallocate_command(uint32_t name_space, unsigned count, uint64_t iova) {
  Command command = on_namespace(Opcode::kDatasetManagement, name_space);
  command.prp1 = iova;
  command.words[0] = count - 1;
  command.words[1] = 4;
  return command;
}

void encode_range(MutableByteSpan out, uint64_t first, uint32_t blocks) {
  store_le<uint32_t>(out, 0, 0);
  store_le<uint32_t>(out, 4, blocks);
  store_le<uint64_t>(out, 8, first);
}

bool Status::passing() const {
  if (do_not_retry || ok()) return false;
  if (type == 3) return true;
  return type == 0 && (code == 0x06 || code == 0x07 || code == 0x08 || code == 0x82);
}

std::string Status::text() const {
  const StatusRow* const row = row_of(type, code);
  std::string_view words = "the controller reports an error";
  if (type == 2) words = "the medium has an error";
  if (type == 3) words = "the path to the namespace has an error";
  if (row != nullptr) words = row->text;
  return fmt::format("{} (status {}/{:#04x})", words, type, code);
}

ErrorKind Status::kind() const {
  const StatusRow* const row = row_of(type, code);
  return row == nullptr ? ErrorKind::kIo : row->kind;
}

Completion Completion::decode(ByteSpan bytes) {
  Completion result;
  result.result = load_le<uint32_t>(bytes, 0);
  result.submissions_head = load_le<uint16_t>(bytes, 8);
  result.queue = load_le<uint16_t>(bytes, 10);
  result.command = load_le<uint16_t>(bytes, 12);
  const uint16_t status = load_le<uint16_t>(bytes, 14);
  result.phase = (status & 1) != 0;
  result.status.code = static_cast<uint8_t>(bits_of(status, 1, 8));
  result.status.type = static_cast<uint8_t>(bits_of(status, 9, 3));
  result.status.do_not_retry = bits_of(status, 15, 1) != 0;
  return result;
}

ControllerIdentity ControllerIdentity::decode(ByteSpan bytes, uint64_t page_bytes) {
  ControllerIdentity result;
  result.serial = text_of(bytes, 4, 20);
  result.model = text_of(bytes, 24, 40);
  result.firmware = text_of(bytes, 64, 8);
  const unsigned transfer = load_le<uint8_t>(bytes, 77);
  // What is larger than every request is no limit.
  constexpr unsigned kMostShift = 30;
  if (transfer != 0 && transfer <= kMostShift) result.most_bytes = page_bytes << transfer;
  const unsigned commands = load_le<uint8_t>(bytes, 512),
                 completions = load_le<uint8_t>(bytes, 513);
  result.namespaces = load_le<uint32_t>(bytes, 516);
  const uint16_t optional = load_le<uint16_t>(bytes, 520);
  result.deallocates = bits_of(optional, 2, 1) != 0;
  result.write_zeroes = bits_of(optional, 3, 1) != 0;
  result.volatile_cache = (load_le<uint8_t>(bytes, 525) & 1) != 0;
  // The smallest entries in the low four bits.
  if ((uint64_t{1} << (commands & 15)) > kCommandBytes ||
      (uint64_t{1} << (completions & 15)) > kCompletionBytes)
    throw Error(ErrorKind::kUnsupported, "the entries of the controller's queues are too long");
  return result;
}

NamespaceIdentity NamespaceIdentity::decode(ByteSpan bytes, uint64_t page_bytes) {
  NamespaceIdentity result;
  result.blocks = load_le<uint64_t>(bytes, 0);
  const unsigned formats = load_le<uint8_t>(bytes, 25) + 1u;
  const unsigned in_use = load_le<uint8_t>(bytes, 26);
  unsigned index = in_use & 15;
  constexpr unsigned kFormatsInLowBits = 16;
  if (formats > kFormatsInLowBits) index |= (in_use >> 5 & 3) << 4;
  const unsigned deallocation = load_le<uint8_t>(bytes, 33);
  result.write_protected = (load_le<uint8_t>(bytes, 99) & 1) != 0;
  result.zeroes_deallocate = (deallocation & 8) != 0;
  if (result.blocks == 0)
    throw Error(ErrorKind::kInvalid, "Invalid namespace: the controller has none of this number");
  if (index >= formats)
    throw Error(ErrorKind::kIo, fmt::format("the namespace has format {} of {}", index, formats));
  const uint32_t format = load_le<uint32_t>(bytes, 128 + 4 * size_t{index});
  if (bits_of(format, 0, 16) != 0)
    throw Error(ErrorKind::kUnsupported, "Namespaces with metadata are not yet supported")
        .hint("Format the namespace without metadata (nvme format), which erases it.");
  const auto shift = static_cast<unsigned>(bits_of(format, 16, 8));
  constexpr unsigned kLeastShift = 9, kMostShift = 12;
  if (shift < kLeastShift || shift > kMostShift || uint64_t{1} << shift > page_bytes)
    throw Error(ErrorKind::kUnsupported,
                fmt::format("Namespace has unsupported block size (2^{})", shift));
  result.block_bytes = uint32_t{1} << shift;
  const auto length = checked_mul(result.blocks, result.block_bytes);
  if (!length || *length > static_cast<uint64_t>(INT64_MAX))
    throw Error(ErrorKind::kUnsupported, "the namespace is too large");
  return result;
}

}  // namespace cairn::nvme
