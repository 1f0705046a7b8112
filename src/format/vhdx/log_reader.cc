#include "format/vhdx/log_reader.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/arith.h"
#include "base/crc32c.h"

namespace cairn::vhdx {

namespace {

constexpr size_t kPieceBytes = 1 << 20;
// No file with a disk of the largest size is longer.
constexpr uint64_t kMaxFile = kMaxDisk + (uint64_t{1} << 40);
constexpr uint64_t kFirstTarget = 192 << 10;
// More than this no log of sane size holds.
constexpr uint64_t kMaxTargets = 16 << 20;

[[noreturn]] void refuse(const LogEntry& entry, const std::string& text) {
  throw Error(ErrorKind::kInvalid, fmt::format("VHDX: log entry {}: {}", entry.sequence, text));
}

}  // namespace

LogReader::LogReader(Node& file, const Header& header)
    : file_(file),
      offset_(header.log_offset),
      length_(header.log_length),
      guid_(header.log_guid),
      // Entries that are valid do not overlap; those that were overwritten seldom get far.
      budget_(length_ * 4) {}

Task<void> LogReader::read(uint64_t position, MutableByteSpan out) {
  position %= length_;
  const size_t first = std::min<uint64_t>(out.size(), length_ - position);
  co_await file_.read(offset_ + position, out.first(first));
  if (first < out.size()) co_await file_.read(offset_, out.subspan(first));
}

Task<std::optional<LogEntry>> LogReader::entry_at(uint64_t position) {
  position %= length_;
  if (const auto known = known_.find(position); known != known_.end()) co_return known->second;
  std::vector<std::byte> sector(kSectorBytes);
  co_await read(position, sector);
  std::optional<LogEntry> entry = LogEntry::decode(sector);
  if (!entry) co_return entry;
  entry->position = position;
  const bool good = co_await valid(*entry);
  if (!good) entry.reset();
  known_[position] = entry;
  co_return entry;
}

Task<bool> LogReader::valid(const LogEntry& entry) {
  if (entry.guid != guid_ || entry.sequence == 0 || entry.length == 0 ||
      !is_aligned(entry.length, kSectorBytes) || entry.length > length_ ||
      !is_aligned(entry.tail, kSectorBytes) || entry.tail >= length_)
    co_return false;
  const uint64_t tables = entry.descriptor_sectors();
  const uint64_t sectors = entry.length / kSectorBytes;
  if (tables > sectors) co_return false;
  uint64_t left = entry.descriptors;
  uint64_t data = 0;
  uint32_t sum = 0;
  std::vector<std::byte> piece;
  for (uint64_t at = 0; at < entry.length; at += piece.size()) {
    piece.resize(std::min<uint64_t>(kPieceBytes, entry.length - at));
    if (budget_ < piece.size())
      throw Error(ErrorKind::kInvalid, "VHDX: the log holds entries that contradict each other");
    budget_ -= piece.size();
    co_await read(entry.position + at, piece);
    if (at == 0) store_le<uint32_t>(piece, 4, 0);
    for (size_t in = 0; in < piece.size(); in += kSectorBytes) {
      const ByteSpan sector = ByteSpan(piece).subspan(in, kSectorBytes);
      const uint64_t index = (at + in) / kSectorBytes;
      if (index < tables) {
        for (size_t d = index == 0 ? LogEntry::kBytes : 0; d < kSectorBytes && left != 0;
             d += LogEntry::kDescriptorBytes, --left) {
          const auto descriptor =
              LogDescriptor::decode(sector.subspan(d, LogEntry::kDescriptorBytes));
          if (!descriptor || descriptor->sequence != entry.sequence) co_return false;
          data += descriptor->zero ? 0 : 1;
        }
        if (index + 1 == tables && tables + data > sectors) co_return false;
      } else if (index < tables + data) {
        const uint64_t sequence = uint64_t{load_le<uint32_t>(sector, 4)} << 32 |
                                  load_le<uint32_t>(sector, kSectorBytes - 4);
        if (load_text(sector, 0, 4) != "data" || sequence != entry.sequence) co_return false;
      }
    }
    sum = crc32c(piece, sum);
  }
  co_return sum == entry.checksum;
}

Task<std::vector<LogEntry>> LogReader::active() {
  std::vector<LogEntry> best;
  std::vector<std::byte> piece;
  for (uint64_t start = 0; start < length_;) {
    // Most of a log is no entry: looked at in large pieces.
    const uint64_t base = align_down(start, kPieceBytes);
    if (piece.empty() || start == base) {
      piece.resize(std::min<uint64_t>(kPieceBytes, length_ - base));
      co_await read(base, piece);
    }
    std::optional<LogEntry> entry;
    if (load_text(piece, start - base, 4) == "loge") entry = co_await entry_at(start);
    if (!entry) {
      start += kSectorBytes;
      continue;
    }
    std::vector<LogEntry> sequence{*entry};
    uint64_t total = entry->length;
    while (total < length_) {
      const std::optional<LogEntry> next = co_await entry_at(start + total);
      if (!next || next->sequence != sequence.back().sequence + 1 || next->length > length_ - total)
        break;
      sequence.push_back(*next);
      total += next->length;
    }
    const uint64_t tail = sequence.back().tail;
    const auto first = std::find_if(sequence.begin(), sequence.end(),
                                    [&](const LogEntry& e) { return e.position == tail; });
    if (first != sequence.end() &&
        (best.empty() || sequence.back().sequence > best.back().sequence))
      best.assign(first, sequence.end());
    const uint64_t next = start + total;
    if (next / kPieceBytes != start / kPieceBytes) piece.clear();
    start = next;
  }
  co_return best;
}

Task<void> LogReader::each_target(const LogEntry& entry,
                                  std::function<Task<void>(const LogDescriptor&, uint64_t)> visit) {
  std::vector<std::byte> sector(kSectorBytes);
  uint64_t data = entry.position + entry.descriptor_sectors() * kSectorBytes;
  size_t at = LogEntry::kBytes;
  uint64_t table = entry.position;
  co_await read(table, sector);
  for (uint64_t left = entry.descriptors; left != 0; --left) {
    if (at == kSectorBytes) {
      table += kSectorBytes;
      co_await read(table, sector);
      at = 0;
    }
    const auto descriptor =
        LogDescriptor::decode(ByteSpan(sector).subspan(at, LogEntry::kDescriptorBytes));
    if (!descriptor) refuse(entry, "it changed while it was read");
    at += LogEntry::kDescriptorBytes;
    co_await visit(*descriptor, place_of(data));
    if (!descriptor->zero) data += kSectorBytes;
  }
}

Task<void> LogReader::check_targets(const std::vector<LogEntry>& entries) {
  const uint64_t last = entries.back().last_file;
  if (last > std::max(kMaxFile, file_.length()))
    refuse(entries.back(), fmt::format("the file is to become {} bytes long", last));
  uint64_t zeroes = 0;
  uint64_t count = 0;
  for (const LogEntry& entry : entries) {
    if (entry.flushed_file > file_.length())
      refuse(entry, fmt::format("the file has been truncated: it had {} bytes, now there are {}",
                                entry.flushed_file, file_.length()));
    count += entry.descriptors;
    if (count > kMaxTargets) refuse(entry, "there are too many changes");
    co_await each_target(entry, [&](const LogDescriptor& descriptor, uint64_t) -> Task<void> {
      const auto end = checked_add(descriptor.offset, descriptor.length);
      if (descriptor.zero) zeroes += std::min(descriptor.length, kMaxFile);
      const bool in_log = end && descriptor.offset<offset_ + length_&& * end> offset_;
      if (!end || descriptor.offset < kFirstTarget || *end > last || in_log || zeroes > last)
        refuse(entry, fmt::format("it changes {} bytes at {}, where a log must not change anything",
                                  descriptor.length, descriptor.offset));
      co_return;
    });
  }
}

Task<void> LogReader::read_data(const LogDescriptor& descriptor, uint64_t place,
                                MutableByteSpan out) {
  co_await file_.read(place, out.first(kSectorBytes));
  store_le<uint64_t>(out, 0, descriptor.leading);
  store_le<uint32_t>(out, kSectorBytes - 4, descriptor.trailing);
}

}  // namespace cairn::vhdx
