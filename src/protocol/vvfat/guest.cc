#include "protocol/vvfat/guest.h"

#include <fmt/core.h>

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "base/arith.h"
#include "protocol/vvfat/names.h"

namespace cairn::vvfat {
namespace {

constexpr size_t kMaxLongSlots = 20;

// The first table, and which of its clusters somebody has.
class Table {
 public:
  Table(const Geometry& geometry, std::vector<std::byte> bytes)
      : geometry_(geometry), bytes_(std::move(bytes)), used_(uint64_t{geometry.clusters} + 2) {}

  bool holds(uint32_t cluster) const { return cluster >= 2 && cluster < used_.size(); }
  bool used(uint32_t cluster) const { return used_[cluster]; }
  void use(uint32_t cluster) { used_[cluster] = true; }
  uint32_t value(uint32_t cluster) const {
    switch (geometry_.type) {
      case FatType::k12: {
        const uint32_t pair = load_le<uint16_t>(bytes_, cluster + cluster / 2);
        return cluster % 2 != 0 ? pair >> 4 : pair & 0xfff;
      }
      case FatType::k16:
        return load_le<uint16_t>(bytes_, uint64_t{cluster} * 2);
      case FatType::k32:
        break;
    }
    return load_le<uint32_t>(bytes_, uint64_t{cluster} * 4) & 0x0fffffff;
  }
  bool ends_chain(uint32_t value) const { return value >= geometry_.end_of_chain() - 7; }
  bool is_bad(uint32_t value) const { return value == geometry_.end_of_chain() - 8; }
  // The first cluster that is taken and belongs to no file; 0: there is none.
  uint32_t lost() const {
    for (uint32_t n = 2; n < used_.size(); ++n) {
      if (used_[n]) continue;
      const uint32_t found = value(n);
      if (found != 0 && !is_bad(found)) return n;
    }
    return 0;
  }

 private:
  Geometry geometry_;
  std::vector<std::byte> bytes_;
  std::vector<bool> used_;
};

// Puts the slots of a long name together as they come.
class LongName {
 public:
  void reset() { left_ = kNone; }
  void add(const LongNameSlot& slot) {
    const uint8_t number = slot.sequence & ~LongNameSlot::kLast;
    if ((slot.sequence & LongNameSlot::kLast) != 0) {
      reset();
      if (number == 0 || number > kMaxLongSlots) return;
      units_.assign(number * LongNameSlot::kUnits, u'\0');
      checksum_ = slot.checksum;
    } else if (left_ == kNone || number == 0 || number + 1u != left_ ||
               slot.checksum != checksum_) {
      reset();
      return;
    }
    left_ = number;
    std::copy(slot.units.begin(), slot.units.end(),
              units_.begin() + static_cast<ptrdiff_t>((number - 1u) * LongNameSlot::kUnits));
  }
  // The name of the entry with this short name; empty: it has no other.
  std::u16string take(ByteSpan short_name) {
    std::u16string out;
    ShortName raw;
    for (size_t i = 0; i < raw.size(); ++i) raw[i] = static_cast<char>(short_name[i]);
    if (left_ == 1 && checksum_ == short_name_checksum(raw))
      out = units_.substr(0, units_.find(u'\0'));
    reset();
    return out;
  }

 private:
  static constexpr unsigned kNone = 0;
  std::u16string units_;
  unsigned left_ = kNone;  // the number of the slot that came last
  uint8_t checksum_ = 0;
};

class GuestReader {
 public:
  GuestReader(const Geometry& geometry, Node& disk, std::vector<std::byte> table)
      : g_(geometry), disk_(disk), table_(geometry, std::move(table)) {}

  Task<GuestReading> run() {
    Entry root;
    root.kind = Entry::Kind::kFolder;
    if (g_.root_entries == 0) root.first_cluster = kRootCluster;
    tree_.entries.push_back(std::move(root));
    for (uint32_t index = 0; index < tree_.entries.size() && trouble_.empty(); ++index) {
      if (!follow_chain(index) || tree_.entries[index].kind != Entry::Kind::kFolder) continue;
      const std::vector<std::byte> content = co_await read_folder(index);
      parse_folder(index, content);
    }
    if (trouble_.empty())
      if (const uint32_t lost = table_.lost(); lost != 0)
        trouble_ = fmt::format("cluster {} is taken and belongs to no file", lost);
    GuestReading reading;
    reading.tree = std::move(tree_);
    reading.trouble = std::move(trouble_);
    co_return reading;
  }

 private:
  // False when there is trouble with it.
  bool fail(uint32_t index, const std::string& what) {
    std::string path;
    for (uint32_t at = index; at != 0; at = tree_.entries[at].parent)
      path = "/" + utf8_of(tree_.entries[at].display_name()) + path;
    trouble_ = (path.empty() ? "the root" : path) + " " + what;
    return false;
  }

  bool follow_chain(uint32_t index) {
    Entry& entry = tree_.entries[index];
    const bool folder = entry.kind == Entry::Kind::kFolder;
    if (index == 0 && g_.root_entries != 0) return true;
    if (folder ? entry.first_cluster == 0 : (entry.first_cluster == 0) != (entry.bytes() == 0))
      return fail(index, "has no place that fits its size");
    const uint64_t most = folder ? std::max<uint64_t>(1, kMaxFolderBytes / g_.cluster_bytes())
                                 : div_ceil(entry.bytes(), g_.cluster_bytes());
    uint32_t cluster = entry.first_cluster;
    bool ended = cluster == 0;
    while (!ended) {
      if (!table_.holds(cluster)) return fail(index, "leads outside of the disk");
      if (table_.used(cluster))
        return fail(index, fmt::format("shares cluster {} with another", cluster));
      if (entry.clusters >= most) return fail(index, "has more clusters than its size needs");
      table_.use(cluster);
      append(entry, cluster);
      const uint32_t next = table_.value(cluster);
      ended = table_.ends_chain(next);
      cluster = next;
    }
    if (!folder && entry.clusters != most)
      return fail(index, "has fewer clusters than its size needs");
    if (entry.pieces.size() == 1) entry.pieces.clear();
    return true;
  }

  static void append(Entry& entry, uint32_t cluster) {
    ++entry.clusters;
    if (!entry.pieces.empty() && entry.pieces.back().first + entry.pieces.back().count == cluster) {
      ++entry.pieces.back().count;
      return;
    }
    entry.pieces.push_back({.first = cluster, .count = 1});
  }

  Task<std::vector<std::byte>> read_folder(uint32_t index) {
    std::vector<std::byte> out;
    if (index == 0 && g_.root_entries != 0) {
      out.resize(g_.root_bytes());
      co_await disk_.read(g_.root_offset(), out);
      co_return out;
    }
    const std::vector<ClusterPiece> chain = tree_.entries[index].chain();
    for (const ClusterPiece& piece : chain) {
      const size_t at = out.size();
      out.resize(at + uint64_t{piece.count} * g_.cluster_bytes());
      co_await disk_.read(g_.cluster_offset(piece.first), MutableByteSpan(out).subspan(at));
    }
    co_return out;
  }

  void parse_folder(uint32_t index, ByteSpan content) {
    const auto first = static_cast<uint32_t>(tree_.entries.size());
    std::unordered_set<std::u16string> known;
    LongName long_name;
    for (; content.size() >= kSlotBytes; content = content.subspan(kSlotBytes)) {
      const ByteSpan slot = content.first(kSlotBytes);
      const auto mark = static_cast<uint8_t>(slot[0]);
      const auto attributes = static_cast<uint8_t>(slot[11]);
      if (mark == DirectoryEntry::kEnd) break;
      if (mark != DirectoryEntry::kDeleted && (attributes & 0x3f) == attribute::kLongName) {
        long_name.add(LongNameSlot::decode(slot));
        continue;
      }
      const bool self = index != 0 && mark == '.';
      if (mark == DirectoryEntry::kDeleted || (attributes & attribute::kVolume) != 0 || self) {
        long_name.reset();
        continue;
      }
      Entry entry = entry_of(DirectoryEntry::decode(slot), long_name.take(slot));
      entry.parent = index;
      const std::u16string key = folded(entry.display_name());
      tree_.entries.push_back(std::move(entry));
      if (!known.insert(key).second) {
        fail(static_cast<uint32_t>(tree_.entries.size() - 1), "is there twice");
        return;
      }
      if (tree_.entries.size() > kMaxEntries) {
        fail(index, "holds too many files");
        return;
      }
    }
    tree_.entries[index].first_child = first;
    tree_.entries[index].children = static_cast<uint32_t>(tree_.entries.size()) - first;
  }

  Entry entry_of(const DirectoryEntry& stored, std::u16string shown) const {
    Entry entry;
    entry.kind =
        (stored.attributes & attribute::kFolder) != 0 ? Entry::Kind::kFolder : Entry::Kind::kFile;
    entry.short_name = stored.name;
    entry.name = host_name(shown.empty() ? short_text(stored.name, stored.case_flags) : shown)
                     .value_or(std::string());
    entry.shown = std::move(shown);
    entry.written = stored.written;
    entry.created = stored.created;
    entry.stamp.bytes = entry.kind == Entry::Kind::kFile ? stored.bytes : 0;
    // FAT12 and FAT16 keep something else in the upper half.
    entry.first_cluster = g_.type == FatType::k32 ? stored.cluster : stored.cluster & 0xffff;
    return entry;
  }

  const Geometry& g_;
  Node& disk_;
  Table table_;
  Tree tree_;
  std::string trouble_;
};

}  // namespace

Task<GuestReading> read_guest(Geometry geometry, NodePtr disk) {
  const uint64_t entries = uint64_t{geometry.clusters} + 2;
  const uint64_t wanted = std::min(geometry.fat_bytes(),
                                   div_ceil(entries * static_cast<uint64_t>(geometry.type), 8) + 1);
  std::vector<std::byte> table(wanted);
  co_await disk->read(geometry.fat_offset(), table);
  GuestReader reader(geometry, *disk, std::move(table));
  GuestReading reading = co_await reader.run();
  co_return reading;
}

}  // namespace cairn::vvfat
