#include "block/partitions.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "base/arith.h"
#include "base/error.h"
#include "base/fields.h"
#include "block/apple_partitions.h"
#include "block/node.h"

namespace cairn {
namespace {

// What no real table exceeds; Linux stops at 256 partitions.
constexpr uint32_t kMostTableEntries = 1024;
constexpr uint32_t kMostEntryBytes = 4096;
constexpr uint64_t kMostTableBytes = 1 << 20;
constexpr size_t kMostPartitions = 256;

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0xedb88320u : 0);
    table[i] = value;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kCrcTable = make_crc_table();

// The checksum of GPT.
uint32_t crc32(ByteSpan bytes) {
  uint32_t state = ~0u;
  for (const std::byte one : bytes)
    state = (state >> 8) ^ kCrcTable[(state ^ static_cast<uint8_t>(one)) & 0xff];
  return ~state;
}

[[noreturn]] void corrupt(const std::string& what) {
  throw Error(ErrorKind::kCorrupt, "GPT: " + what);
}

std::string mbr_type(uint8_t type) {
  switch (type) {
    case 0x01:
    case 0x04:
    case 0x06:
    case 0x0e:
      return "FAT16";
    case 0x07:
      return "NTFS or exFAT";
    case 0x0b:
    case 0x0c:
      return "FAT32";
    case 0x82:
      return "Linux swap";
    case 0x83:
      return "Linux";
    case 0x8e:
      return "Linux LVM";
    case 0xef:
      return "EFI system";
    case 0xfd:
      return "Linux RAID";
    default:
      break;
  }
  static constexpr char kDigits[] = "0123456789abcdef";
  return std::string("type 0x") + kDigits[type >> 4] + kDigits[type & 15];
}

std::string gpt_type(const std::array<uint8_t, 16>& type) {
  // As written in the standard: three numbers in little-endian order, then bytes.
  static constexpr int kOrder[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string text;
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += kDigits[type[kOrder[i]] >> 4];
    text += kDigits[type[kOrder[i]] & 15];
  }
  static constexpr std::pair<std::string_view, std::string_view> kKnown[] = {
      {"0FC63DAF-8483-4772-8E79-3D69D8477DE4", "Linux"},
      {"C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "EFI system"},
      {"EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", "Microsoft basic data"},
      {"E3C9E316-0B5C-4DB8-817D-F92DF00215AE", "Microsoft reserved"},
      {"0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", "Linux swap"},
      {"E6D6D379-F507-44C2-A23C-238F2A3DF928", "Linux LVM"},
      {"21686148-6449-6E6F-744E-656564454649", "BIOS boot"},
      {"4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "Linux root (x86-64)"},
      {"A19D880F-05FC-4D3B-A006-743F0F84911E", "Linux RAID"},
  };
  for (const auto& [known, name] : kKnown)
    if (text == known) return std::string(name);
  return text;
}

// A character of a name as UTF-8; what cannot be printed becomes '?'.
void append_utf8(std::string& text, uint32_t code) {
  if (code < 32 || (code >= 127 && code < 160) || (code >= 0xd800 && code < 0xe000)) code = '?';
  if (code < 0x80) {
    text += static_cast<char>(code);
  } else if (code < 0x800) {
    text += static_cast<char>(0xc0 | code >> 6);
    text += static_cast<char>(0x80 | (code & 63));
  } else {
    text += static_cast<char>(0xe0 | code >> 12);
    text += static_cast<char>(0x80 | (code >> 6 & 63));
    text += static_cast<char>(0x80 | (code & 63));
  }
}

// Adds the part of COUNT sectors from FIRST on, unless it leaves the disk.
void add(PartitionTable& table, uint64_t disk_bytes, unsigned number, uint64_t first,
         uint64_t count, std::string type, std::string name) {
  const auto offset = checked_mul(first, table.sector_bytes);
  const auto length = checked_mul(count, table.sector_bytes);
  const auto end = offset && length ? checked_add(*offset, *length) : std::nullopt;
  if (!end || *end > disk_bytes || first == 0) {
    table.warnings.push_back(
        fmt::format("partition {} is left out: it is not within the disk", number));
    return;
  }
  Partition partition;
  partition.number = number;
  partition.offset = *offset;
  partition.length = *length;
  partition.type = std::move(type);
  partition.name = std::move(name);
  table.partitions.push_back(std::move(partition));
}

// The chain of logical partitions: each link names one partition and the next link, all of them
// within the extended partition.
Task<void> read_logical(PartitionSource& source, PartitionTable& table, MbrEntry outer) {
  const uint64_t begin = outer.first;
  const uint64_t end = begin + outer.count;
  uint64_t link = begin;
  unsigned number = 5;
  std::set<uint64_t> seen;
  std::array<std::byte, Mbr::kBytes> sector;
  while (true) {
    if (!seen.insert(link).second) {
      table.warnings.push_back("the chain of logical partitions forms a circle");
      co_return;
    }
    if (seen.size() > kMostPartitions) {
      table.warnings.push_back("the chain of logical partitions is too long");
      co_return;
    }
    if (link * 512 + Mbr::kBytes > source.length()) {
      table.warnings.push_back("the chain of logical partitions leaves the disk");
      co_return;
    }
    co_await source.read(link * 512, sector);
    const std::optional<Mbr> mbr = Mbr::decode(sector);
    if (!mbr) {
      table.warnings.push_back("a link of the chain of logical partitions is damaged");
      co_return;
    }
    const MbrEntry* next = nullptr;
    for (const MbrEntry& entry : mbr->entries) {
      if (!entry.used()) continue;
      if (entry.extended()) {
        if (next == nullptr) next = &entry;
        continue;
      }
      add(table, source.length(), number++, link + entry.first, entry.count, mbr_type(entry.type),
          {});
    }
    if (next == nullptr) co_return;
    link = begin + next->first;
    if (link >= end) {
      table.warnings.push_back("the chain of logical partitions leaves its partition");
      co_return;
    }
  }
}

Task<PartitionTable> read_mbr(PartitionSource& source, Mbr mbr) {
  PartitionTable table;
  table.scheme = "MBR";
  const MbrEntry* outer = nullptr;
  for (unsigned i = 0; i < 4; ++i) {
    const MbrEntry& entry = mbr.entries[i];
    if (!entry.used()) continue;
    if (entry.extended()) {
      if (outer == nullptr) outer = &entry;
      continue;
    }
    add(table, source.length(), i + 1, entry.first, entry.count, mbr_type(entry.type), {});
  }
  if (outer != nullptr) co_await read_logical(source, table, *outer);
  co_return table;
}

// The table whose header is in sector OWN. Nothing without a signature there; throws kCorrupt.
Task<std::optional<PartitionTable>> read_gpt_at(PartitionSource& source, uint64_t own,
                                                uint32_t sector_bytes) {
  const uint64_t sectors = source.length() / sector_bytes;
  if (own == 0 || own >= sectors) co_return std::nullopt;
  std::vector<std::byte> sector(sector_bytes);
  co_await source.read(own * sector_bytes, sector);
  const std::optional<GptHeader> header = GptHeader::decode(sector);
  if (!header) co_return std::nullopt;
  header->validate(own, sectors, sector_bytes);
  // Rounded up: some disks want whole sectors.
  std::vector<std::byte> bytes(align_up(header->table_bytes(), sector_bytes));
  co_await source.read(header->entries_sector * sector_bytes, bytes);
  if (crc32(ByteSpan(bytes).first(header->table_bytes())) != header->entries_crc)
    corrupt("the checksum of the entries does not match");
  PartitionTable table;
  table.scheme = "GPT";
  table.sector_bytes = sector_bytes;
  for (uint32_t i = 0; i < header->entry_count; ++i) {
    const ByteSpan raw = ByteSpan(bytes).subspan(size_t{i} * header->entry_bytes, 128);
    GptEntry entry = GptEntry::decode(raw);
    if (!entry.used()) continue;
    if (table.partitions.size() == kMostPartitions) {
      table.warnings.push_back("partitions after the first 256 are left out");
      break;
    }
    if (entry.last < entry.first || entry.first < header->first_usable ||
        entry.last > header->last_usable) {
      table.warnings.push_back(fmt::format(
          "partition {} is left out: it is not within the usable part of the disk", i + 1));
      continue;
    }
    add(table, source.length(), i + 1, entry.first, entry.last - entry.first + 1,
        gpt_type(entry.type), std::move(entry.name));
  }
  co_return table;
}

Task<PartitionTable> read_gpt(PartitionSource& source) {
  std::string reason = "no header was found";
  for (const uint32_t sector_bytes : {512u, 4096u}) {
    const uint64_t sectors = source.length() / sector_bytes;
    const uint64_t last = sectors == 0 ? 0 : sectors - 1;
    for (const uint64_t own : {uint64_t{1}, last}) {
      try {
        std::optional<PartitionTable> table = co_await read_gpt_at(source, own, sector_bytes);
        if (!table) continue;
        if (own != 1) table->warnings.push_back("the first GPT is damaged: its copy is used");
        co_return std::move(*table);
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::kCorrupt) throw;
        reason = error.message();
      }
    }
  }
  throw Error(ErrorKind::kCorrupt, "The partition table (GPT) cannot be used: " + reason);
}

class NodeSource : public PartitionSource {
 public:
  explicit NodeSource(Node& node) : node_(node) {}
  uint64_t length() const override { return node_.length(); }
  Task<void> read(uint64_t offset, MutableByteSpan out) override { return node_.read(offset, out); }

 private:
  Node& node_;
};

constexpr auto kGptFields =
    little_endian_fields(Field(24, &GptHeader::own_sector), Field(32, &GptHeader::other_sector),
                         Field(40, &GptHeader::first_usable), Field(48, &GptHeader::last_usable),
                         Field(72, &GptHeader::entries_sector), Field(80, &GptHeader::entry_count),
                         Field(84, &GptHeader::entry_bytes), Field(88, &GptHeader::entries_crc));

}  // namespace

std::optional<Mbr> Mbr::decode(ByteSpan sector) {
  if (sector.size() < kBytes || load_be<uint16_t>(sector, 510) != 0x55aa) return std::nullopt;
  Mbr mbr;
  for (size_t i = 0; i < 4; ++i) {
    const ByteSpan raw = sector.subspan(446 + 16 * i, 16);
    MbrEntry& entry = mbr.entries[i];
    entry.status = static_cast<uint8_t>(raw[0]);
    entry.type = static_cast<uint8_t>(raw[4]);
    entry.first = load_le<uint32_t>(raw, 8);
    entry.count = load_le<uint32_t>(raw, 12);
    if ((entry.status & 0x7f) != 0) return std::nullopt;
  }
  return mbr;
}

std::optional<GptHeader> GptHeader::decode(ByteSpan sector) {
  if (load_text(sector, 0, 8) != "EFI PART") return std::nullopt;
  const uint32_t header_bytes = load_le<uint32_t>(sector, 12);
  if (header_bytes < 92 || header_bytes > sector.size())
    corrupt(fmt::format("the header claims a size of {} bytes", header_bytes));
  std::vector<std::byte> copy(sector.begin(), sector.begin() + header_bytes);
  store_le<uint32_t>(copy, 16, 0);
  if (crc32(copy) != load_le<uint32_t>(sector, 16))
    corrupt("the checksum of the header does not match");
  GptHeader header;
  kGptFields.load(sector, header);
  return header;
}

void GptHeader::validate(uint64_t own, uint64_t sectors, uint32_t sector_bytes) const {
  if (own_sector != own)
    corrupt(fmt::format("the header in sector {} says that it is in sector {}", own, own_sector));
  if (entry_bytes < 128 || entry_bytes > kMostEntryBytes || !is_power_of_two(entry_bytes))
    corrupt(fmt::format("entries of {} bytes", entry_bytes));
  if (entry_count == 0 || entry_count > kMostTableEntries || table_bytes() > kMostTableBytes)
    corrupt(fmt::format("a table of {} entries", entry_count));
  const uint64_t table_sectors = div_ceil(table_bytes(), sector_bytes);
  if (entries_sector < 2 || entries_sector >= sectors || table_sectors > sectors - entries_sector)
    corrupt(fmt::format("the entries, from sector {} on, leave the disk", entries_sector));
  if (first_usable > last_usable || last_usable >= sectors)
    corrupt(fmt::format("the usable part of the disk is from sector {} to {}", first_usable,
                        last_usable));
}

bool GptEntry::used() const {
  return std::any_of(type.begin(), type.end(), [](uint8_t one) { return one != 0; });
}

GptEntry GptEntry::decode(ByteSpan bytes) {
  GptEntry entry;
  for (size_t i = 0; i < 16; ++i) entry.type[i] = static_cast<uint8_t>(bytes[i]);
  entry.first = load_le<uint64_t>(bytes, 32);
  entry.last = load_le<uint64_t>(bytes, 40);
  for (size_t at = 56; at < 128; at += 2) {
    const uint16_t code = load_le<uint16_t>(bytes, at);
    if (code == 0) break;
    append_utf8(entry.name, code);
  }
  return entry;
}

Task<PartitionTable> read_partitions(PartitionSource& source) {
  std::array<std::byte, Mbr::kBytes> sector;
  std::optional<Mbr> mbr;
  if (source.length() >= sector.size()) {
    co_await source.read(0, sector);
    mbr = Mbr::decode(sector);
  }
  const auto used = [](const MbrEntry& entry) { return entry.used(); };
  if (!mbr || std::none_of(mbr->entries.begin(), mbr->entries.end(), used)) {
    std::optional<PartitionTable> apple = co_await read_apple_partitions(source);
    if (apple) co_return std::move(*apple);
    throw Error(ErrorKind::kInvalid, "No partition table was found")
        .hint("The whole disk can be mounted on a file; only its partitions need a directory.",
              "partitions");
  }
  for (const MbrEntry& entry : mbr->entries) {
    if (entry.type != 0xee) continue;
    PartitionTable table = co_await read_gpt(source);
    co_return table;
  }
  PartitionTable table = co_await read_mbr(source, *mbr);
  co_return table;
}

Task<PartitionTable> read_partitions(Node& node) {
  NodeSource source(node);
  PartitionTable table = co_await read_partitions(source);
  co_return table;
}

}  // namespace cairn
