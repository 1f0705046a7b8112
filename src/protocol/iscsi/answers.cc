#include "protocol/iscsi/answers.h"

#include <algorithm>

namespace cairn::iscsi {
namespace {

constexpr uint8_t kOpticalDevice = 0x05;
constexpr size_t kPageHeaderBytes = 4;
constexpr size_t kMostDesignatorBytes = 20;  // room in EXTENDED COPY
constexpr size_t kLeastDesignatorBytes = 8;
constexpr uint8_t kEui64 = 2, kNaa = 3;

bool has(ByteSpan bytes, size_t at, uint8_t bits) {
  return at < bytes.size() && (load_be<uint8_t>(bytes, at) & bits) != 0;
}

}  // namespace

bool read_inquiry(ByteSpan answer, Unit* unit) {
  if (answer.size() < 6) return false;
  unit->cd = (load_be<uint8_t>(answer, 0) & 0x1f) == kOpticalDevice;
  unit->copies = has(answer, 5, 0x08);
  return true;
}

void read_modes(ByteSpan answer, Unit* unit) {
  unit->mode_unknown = answer.size() < 4;
  unit->write_protected = !unit->mode_unknown && has(answer, 2, 0x80);
  unit->fua = !unit->mode_unknown && has(answer, 2, 0x10);
}

bool read_capacity10(ByteSpan answer, Unit* unit) {
  if (answer.size() < 8) return false;
  const auto last = load_be<uint32_t>(answer, 0);
  unit->block_bytes = load_be<uint32_t>(answer, 4);
  // No last block: no medium.
  unit->blocks = last == 0 ? 0 : uint64_t{last} + 1;
  return true;
}

std::optional<uint64_t> blocks_of(ByteSpan answer) {
  if (answer.size() < 12) return std::nullopt;
  const auto last = load_be<uint64_t>(answer, 0);
  // The controller of a target has no blocks.
  if (last == 0 && load_be<uint32_t>(answer, 8) == 0) return 0;
  return last == UINT64_MAX ? UINT64_MAX : last + 1;
}

bool read_capacity16(ByteSpan answer, Unit* unit) {
  const auto blocks = blocks_of(answer);
  if (!blocks) return false;
  unit->blocks = *blocks;
  unit->block_bytes = load_be<uint32_t>(answer, 8);
  unit->thin = has(answer, 14, 0x80);
  unit->unmapped_zero = has(answer, 14, 0x40);
  return true;
}

size_t page_bytes(ByteSpan answer) {
  return answer.size() < kPageHeaderBytes ? 0 : kPageHeaderBytes + load_be<uint16_t>(answer, 2);
}

ByteSpan page_of(ByteSpan answer, uint8_t code) {
  if (answer.size() < kPageHeaderBytes || load_be<uint8_t>(answer, 1) != code) return {};
  return answer.first(std::min(answer.size(), page_bytes(answer))).subspan(kPageHeaderBytes);
}

void read_limits(ByteSpan page, Unit* unit) {
  // Positions count from the page's beginning.
  const auto at = [&](size_t position) -> uint64_t {
    const size_t offset = position - kPageHeaderBytes;
    return offset + 4 <= page.size() ? load_be<uint32_t>(page, offset) : 0;
  };
  unit->most_transfer = at(8);
  unit->most_unmap = at(20);
  unit->unmap_unit = at(28);
  if (40 <= page.size()) unit->most_same = load_be<uint64_t>(page, 36 - kPageHeaderBytes);
}

void read_provisioning_page(ByteSpan page, Unit* unit) {
  unit->unmap = has(page, 1, 0x80);
  unit->same_unmaps = has(page, 1, 0x40);
  unit->same10_unmaps = has(page, 1, 0x20);
}

void read_designators(ByteSpan page, Unit* unit) {
  constexpr size_t kHead = 4;
  while (page.size() >= kHead) {
    const auto code_set = static_cast<uint8_t>(load_be<uint8_t>(page, 0) & 0x0f);
    const auto type = static_cast<uint8_t>(load_be<uint8_t>(page, 1) & 0x0f);
    const bool of_unit = !has(page, 1, 0x30);
    const size_t length = load_be<uint8_t>(page, 3);
    if (length > page.size() - kHead) return;
    const ByteSpan name = page.subspan(kHead, length);
    // Those of other types may be those of units elsewhere as well.
    if (of_unit && (type == kNaa || type == kEui64) && type > unit->designator.type &&
        length >= kLeastDesignatorBytes && length <= kMostDesignatorBytes)
      unit->designator = {.code_set = code_set, .type = type, .bytes = {name.begin(), name.end()}};
    page = page.subspan(kHead + length);
  }
}

std::vector<Provisioning> read_provisioning(ByteSpan answer) {
  constexpr size_t kHeaderBytes = 8, kRunBytes = 16;
  std::vector<Provisioning> runs;
  if (answer.size() < kHeaderBytes) return runs;
  // The length does not count itself.
  const uint64_t end =
      std::min<uint64_t>(answer.size(), uint64_t{4} + load_be<uint32_t>(answer, 0));
  for (size_t at = kHeaderBytes; at + kRunBytes <= end; at += kRunBytes)
    runs.push_back({.block = load_be<uint64_t>(answer, at),
                    .count = load_be<uint32_t>(answer, at + 8),
                    .mapped = (load_be<uint8_t>(answer, at + 12) & 0x0f) == 0});
  return runs;
}

}  // namespace cairn::iscsi
