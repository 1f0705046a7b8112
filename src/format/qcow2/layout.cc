#include "format/qcow2/layout.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>

#include "base/arith.h"
#include "base/fields.h"

namespace cairn::qcow2 {
namespace {

constexpr uint32_t kExtEnd = 0;
constexpr uint32_t kExtBackingFormat = 0xe2792aca;
constexpr uint32_t kExtFeatures = 0x6803f857;
constexpr uint32_t kExtBitmaps = 0x23852875;
constexpr uint32_t kExtCrypto = 0x0537be77;
constexpr uint32_t kExtDataFile = 0x44415441;
constexpr size_t kFeatureBytes = 48;

struct Feature {
  uint8_t type;
  uint8_t bit;
  std::string_view name;
};
constexpr Feature kFeatures[] = {
    {0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
    {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
    {2, 0, "bitmaps"},          {2, 1, "raw external data"},
};

[[noreturn]] void unsupported(const std::string& text) {
  throw Error(ErrorKind::kUnsupported, text);
}

// OFFSET is cluster-aligned and the table ends below 2^63.
bool table_fits(uint64_t offset, uint64_t bytes, uint64_t cluster) {
  const auto end = checked_add(offset, bytes);
  return end && *end <= static_cast<uint64_t>(INT64_MAX) && is_aligned(offset, cluster);
}

std::string own_feature_table() {
  std::string table(std::size(kFeatures) * kFeatureBytes, '\0');
  for (size_t i = 0; i < std::size(kFeatures); ++i) {
    table[i * kFeatureBytes] = static_cast<char>(kFeatures[i].type);
    table[i * kFeatureBytes + 1] = static_cast<char>(kFeatures[i].bit);
    kFeatures[i].name.copy(table.data() + i * kFeatureBytes + 2, kFeatureBytes - 2);
  }
  return table;
}

constexpr auto kFields = big_endian_fields(
    Field(8, &Header::backing_offset), Field(16, &Header::backing_length),
    Field(20, &Header::cluster_bits), Field(24, &Header::size), Field(32, &Header::crypt_method),
    Field(36, &Header::l1_entries), Field(40, &Header::l1_offset),
    Field(48, &Header::refcount_table_offset), Field(56, &Header::refcount_table_clusters),
    Field(60, &Header::snapshot_count), Field(64, &Header::snapshots_offset));

// Of version 3 alone.
constexpr auto kFieldsV3 =
    big_endian_fields(Field(72, &Header::incompatible), Field(80, &Header::compatible),
                      Field(88, &Header::autoclear), Field(96, &Header::refcount_order));

}  // namespace

Header Header::decode(ByteSpan bytes) {
  Header h;
  if (load_be<uint32_t>(bytes, 0) != kMagic) invalid("Image is not in qcow2 format");
  h.version = load_be<uint32_t>(bytes, 4);
  if (h.version != 2 && h.version != 3)
    unsupported("Unsupported qcow2 version " + std::to_string(h.version));
  kFields.load(bytes, h);
  if (h.cluster_bits < 9 || h.cluster_bits > 21)
    invalid("Unsupported cluster size: 2^" + std::to_string(h.cluster_bits));
  h.size = align_down(h.size, 512);
  if (h.version == 2) {
    h.header_length = kBytesV2;
    return h;
  }
  kFieldsV3.load(bytes, h);
  h.header_length = load_be<uint32_t>(bytes, 100);
  if (h.header_length < 104) invalid("qcow2 header too short");
  if (h.header_length > h.cluster_bytes()) invalid("qcow2 header exceeds cluster size");
  if (h.header_length > 104) h.compression_type = load_be<uint8_t>(bytes, 104);
  return h;
}

void Header::encode(MutableByteSpan bytes) const {
  store_be<uint32_t>(bytes, 0, kMagic);
  store_be<uint32_t>(bytes, 4, version);
  kFields.store(bytes, *this);
  if (version == 2) return;
  kFieldsV3.store(bytes, *this);
  store_be<uint32_t>(bytes, 100, static_cast<uint32_t>(kBytesV3 + unknown.size()));
  store_be<uint8_t>(bytes, 104, compression_type);
  std::copy(unknown.begin(), unknown.end(), bytes.begin() + kBytesV3);
}

uint64_t Header::l1_entries_for(uint64_t bytes) const { return div_ceil(bytes, l2_range()); }

uint64_t Header::max_size() const { return (kMaxL1Bytes / 8) * l2_range(); }

void Header::validate(uint64_t file_bytes, bool for_check) const {
  const uint64_t cluster = cluster_bytes();
  if (backing_offset > cluster) invalid("Invalid backing file offset");
  if (version >= 3) {
    const bool flagged = (incompatible & kIncompatCompression) != 0;
    if (compression_type > 1)
      unsupported("qcow2: unknown compression type: " + std::to_string(compression_type));
    if (flagged && compression_type == 0)
      invalid("qcow2: Compression type incompatible feature bit must not be set");
    if (!flagged && compression_type != 0)
      invalid("qcow2: Compression type incompatible feature bit must be set");
  }
  if (extended_l2() && cluster_bits < 14)
    invalid("Unsupported subcluster size: " + std::to_string(cluster / 32));
  if (refcount_order > 6) invalid("Reference count entry width too large; may not exceed 64 bits");
  if (crypt_method > 2)
    invalid("Unsupported encryption method " + std::to_string(static_cast<int32_t>(crypt_method)));
  const auto beyond = [&](uint64_t offset, uint64_t bytes) {
    return bytes != 0 && (offset < cluster || offset >= file_bytes);
  };
  if (!for_check || refcount_table_clusters != 0) {
    if (refcount_table_clusters == 0) invalid("Image does not contain a reference count table");
    const uint64_t bytes = uint64_t{refcount_table_clusters} * cluster;
    if (bytes > kMaxRefcountTableBytes)
      throw Error(ErrorKind::kTooLarge, "Reference count table too large");
    if (!table_fits(refcount_table_offset, bytes, cluster))
      invalid("Reference count table offset invalid");
    if (!for_check && beyond(refcount_table_offset, bytes))
      invalid("Reference count table offset invalid: it is outside the file or in the header");
  }
  if (snapshot_count > kMaxSnapshots && !for_check)
    throw Error(ErrorKind::kTooLarge, "Snapshot table too large");
  if (!table_fits(snapshots_offset, uint64_t{snapshot_count} * 40, cluster))
    invalid("Snapshot table offset invalid");
  if (uint64_t{l1_entries} * 8 > kMaxL1Bytes)
    throw Error(ErrorKind::kTooLarge, "Active L1 table too large");
  if (!table_fits(l1_offset, uint64_t{l1_entries} * 8, cluster))
    invalid("Active L1 table offset invalid");
  if (size > static_cast<uint64_t>(INT64_MAX))
    throw Error(ErrorKind::kTooLarge, "Could not refresh total sector count: File too large");
  const uint64_t needed = l1_entries_for(size);
  if (needed > INT32_MAX) throw Error(ErrorKind::kTooLarge, "Image is too big");
  if (l1_entries < needed) invalid("L1 table is too small");
  if (beyond(l1_offset, uint64_t{l1_entries} * 8))
    invalid("Active L1 table offset invalid: it is outside the file or in the header");
}

std::string describe_features(uint64_t bits, const std::string& table) {
  std::string text;
  const auto add = [&text](std::string_view name) {
    if (!text.empty()) text += ", ";
    text += name;
  };
  // The last entry may be cut short after its name.
  for (size_t at = 0; at + 2 < table.size() && bits != 0; at += kFeatureBytes) {
    const auto bit = static_cast<uint8_t>(table[at + 1]);
    if (table[at + 2] == 0) break;
    if (table[at] != 0 || bit > 63 || (bits >> bit & 1) == 0) continue;
    add(load_text(bytes_of(table), at + 2, std::min(kFeatureBytes, table.size() - at) - 2));
    bits &= ~(uint64_t{1} << bit);
  }
  if (bits != 0) {
    char hex[24];
    std::snprintf(hex, sizeof hex, "%llx", static_cast<unsigned long long>(bits));
    add("Unknown incompatible feature: " + std::string(hex));
  }
  return text;
}

namespace {

BitmapsExtension decode_bitmaps(ByteSpan data, const Header& header) {
  BitmapsExtension bitmaps{.count = load_be<uint32_t>(data, 0),
                           .directory_bytes = load_be<uint64_t>(data, 8),
                           .directory_offset = load_be<uint64_t>(data, 16)};
  if (load_be<uint32_t>(data, 4) != 0) invalid("bitmaps_ext: Reserved field is not zero");
  if (bitmaps.count > kMaxBitmaps)
    invalid(fmt::format(
        "bitmaps_ext: Image has {} bitmaps, exceeding the QEMU supported maximum of 65535",
        bitmaps.count));
  if (bitmaps.count == 0) invalid("found bitmaps extension with zero bitmaps");
  if (!is_aligned(bitmaps.directory_offset, header.cluster_bytes()) ||
      bitmaps.directory_offset > static_cast<uint64_t>(INT64_MAX))
    invalid("bitmaps_ext: invalid bitmap directory offset");
  if (bitmaps.directory_bytes > kMaxBitmapDirectoryBytes)
    invalid(
        fmt::format("bitmaps_ext: bitmap directory size ({}) exceeds the maximum supported "
                    "size (67107840)",
                    bitmaps.directory_bytes));
  if (bitmaps.directory_bytes == 0) invalid("Requested bitmap directory size is zero");
  return bitmaps;
}

}  // namespace

Extensions Extensions::decode(const Header& header, ByteSpan cluster) {
  Extensions result;
  const uint64_t end = header.backing_offset != 0
                           ? std::min<uint64_t>(header.backing_offset, cluster.size())
                           : cluster.size();
  bool over = false;
  for (uint64_t at = header.header_length; at < end && !over;) {
    if (end - at < 8) invalid("Header extension too large");
    const uint32_t type = load_be<uint32_t>(cluster, at);
    const uint32_t length = load_be<uint32_t>(cluster, at + 4);
    at += 8;
    if (length > end - at) invalid("Header extension too large");
    const ByteSpan data = cluster.subspan(at, length);
    switch (type) {
      case kExtEnd:
        over = true;
        break;
      case kExtBackingFormat:
        if (length >= 16)
          invalid(fmt::format("ERROR: ext_backing_format: len={} too large (>=16)", length));
        result.backing_format = load_text(data, 0, length);
        break;
      case kExtFeatures:
        result.feature_table.assign(reinterpret_cast<const char*>(data.data()), length);
        break;
      case kExtDataFile:
        result.data_file = load_text(data, 0, length);
        break;
      case kExtCrypto:
        if (header.crypt_method != 2)
          invalid("CRYPTO header extension only expected with LUKS encryption method");
        if (length != 16)
          invalid(fmt::format("CRYPTO header extension size {}, but expected size 16", length));
        result.crypto = {load_be<uint64_t>(data, 0), load_be<uint64_t>(data, 8)};
        if (!is_aligned(result.crypto->first, header.cluster_bytes()))
          invalid(
              fmt::format("Encryption header offset '{}' is not a multiple of cluster size '{}'",
                          result.crypto->first, header.cluster_bytes()));
        break;
      case kExtBitmaps:
        if (length != 24) invalid("bitmaps_ext: Invalid extension length");
        if ((header.autoclear & kAutoclearBitmaps) == 0) {  // changed without them
          result.stale_bitmaps = true;
          break;
        }
        result.bitmaps = decode_bitmaps(data, header);
        break;
      default:
        result.unknown.push_back({type, {data.begin(), data.end()}});
        break;
    }
    at += align_up(length, 8);
  }
  if (header.backing_offset != 0 && header.backing_length != 0) {
    const uint64_t room = header.cluster_bytes() - header.backing_offset;
    if (header.backing_length > std::min<uint64_t>(kMaxBackingName, room))
      invalid("Backing file name too long");
    if (header.backing_offset < header.header_length) invalid("Invalid backing file offset");
    result.backing_name = load_text(cluster, header.backing_offset, header.backing_length);
  }
  return result;
}

std::vector<std::byte> encode_first_cluster(Header& header, const Extensions& extensions) {
  std::vector<std::byte> cluster(header.cluster_bytes());
  size_t at = header.version == 2 ? Header::kBytesV2 : Header::kBytesV3 + header.unknown.size();
  const auto need = [&](size_t bytes) {
    if (bytes > cluster.size() - std::min(at, cluster.size()))
      throw Error(ErrorKind::kNoSpace, "No space left in the file header");
  };
  const auto add = [&](uint32_t type, ByteSpan data) {
    need(8 + align_up(data.size(), 8));
    store_be<uint32_t>(cluster, at, type);
    store_be<uint32_t>(cluster, at + 4, static_cast<uint32_t>(data.size()));
    std::copy(data.begin(), data.end(), cluster.begin() + static_cast<ptrdiff_t>(at + 8));
    at += 8 + align_up(data.size(), 8);
  };
  if (!extensions.backing_format.empty())
    add(kExtBackingFormat, bytes_of(extensions.backing_format));
  if (!extensions.data_file.empty()) add(kExtDataFile, bytes_of(extensions.data_file));
  if (extensions.crypto) {
    std::byte data[16];
    store_be<uint64_t>(data, 0, extensions.crypto->first);
    store_be<uint64_t>(data, 8, extensions.crypto->second);
    add(kExtCrypto, data);
  }
  if (header.version >= 3 && header.cluster_bytes() > 4096)
    add(kExtFeatures, bytes_of(own_feature_table()));
  if (extensions.bitmaps) {
    std::byte data[24] = {};
    store_be<uint32_t>(data, 0, extensions.bitmaps->count);
    store_be<uint64_t>(data, 8, extensions.bitmaps->directory_bytes);
    store_be<uint64_t>(data, 16, extensions.bitmaps->directory_offset);
    add(kExtBitmaps, data);
  }
  for (const UnknownExtension& unknown : extensions.unknown) add(unknown.type, unknown.data);
  add(kExtEnd, {});
  header.backing_offset = 0;
  header.backing_length = 0;
  if (!extensions.backing_name.empty()) {
    need(extensions.backing_name.size());
    header.backing_offset = at;
    header.backing_length = static_cast<uint32_t>(extensions.backing_name.size());
    store_text(cluster, at, extensions.backing_name);
  }
  header.encode(cluster);
  return cluster;
}

CompressedPlace CompressedPlace::decode(uint64_t entry, unsigned cluster_bits) {
  const unsigned x = 62 - (cluster_bits - 8);
  const uint64_t offset = entry & ((uint64_t{1} << x) - 1) & (kMaxHostOffset - 1);
  const uint64_t sectors = ((entry & ~(kCompressed | kCopied)) >> x) + 1;
  return {offset, sectors * 512 - offset % 512};
}

uint64_t CompressedPlace::encode(uint64_t offset, uint64_t length, unsigned cluster_bits) {
  const unsigned x = 62 - (cluster_bits - 8);
  const uint64_t additional = (offset + length - 1) / 512 - offset / 512;
  return kCompressed | additional << x | offset;
}

SnapshotEntry SnapshotEntry::decode(ByteSpan bytes, size_t number, uint64_t current_size) {
  SnapshotEntry entry;
  entry.l1_offset = load_be<uint64_t>(bytes, 0);
  entry.l1_entries = load_be<uint32_t>(bytes, 8);
  const uint16_t id_length = load_be<uint16_t>(bytes, 12);
  const uint16_t name_length = load_be<uint16_t>(bytes, 14);
  entry.date_seconds = load_be<uint32_t>(bytes, 16);
  entry.date_nanoseconds = load_be<uint32_t>(bytes, 20);
  entry.vm_clock = load_be<uint64_t>(bytes, 24);
  entry.vm_state_bytes = load_be<uint32_t>(bytes, 32);
  const uint32_t extra = load_be<uint32_t>(bytes, 36);
  if (extra > kMaxSnapshotExtraBytes)
    throw Error(ErrorKind::kInvalid,
                "Too much extra metadata in snapshot table entry " + std::to_string(number))
        .hint("You can force-remove this extra metadata with qemu-img check -r all");
  entry.disk_bytes = current_size;
  if (extra >= 8) entry.vm_state_bytes = load_be<uint64_t>(bytes, 40);
  if (extra >= 16) entry.disk_bytes = load_be<uint64_t>(bytes, 48);
  if (extra >= 24) {
    const uint64_t count = load_be<uint64_t>(bytes, 56);
    if (count != UINT64_MAX) entry.icount = count;
  }
  if (extra > 24) {
    const ByteSpan rest =
        bytes.subspan(std::min<size_t>(bytes.size(), 64))
            .first(std::min<size_t>(extra - 24, bytes.size() - std::min<size_t>(bytes.size(), 64)));
    entry.unknown.assign(rest.begin(), rest.end());
  }
  entry.id = load_text(bytes, 40 + extra, id_length);
  entry.name = load_text(bytes, size_t{40} + extra + id_length, name_length);
  entry.encoded_bytes = align_up(size_t{40} + extra + id_length + name_length, 8);
  return entry;
}

void SnapshotEntry::encode(std::vector<std::byte>& table) const {
  const size_t at = table.size();
  const size_t extra = 24 + unknown.size();
  table.resize(align_up(at + 40 + extra + id.size() + name.size(), 8));
  const MutableByteSpan bytes = MutableByteSpan(table).subspan(at);
  store_be<uint64_t>(bytes, 0, l1_offset);
  store_be<uint32_t>(bytes, 8, l1_entries);
  store_be<uint16_t>(bytes, 12, static_cast<uint16_t>(id.size()));
  store_be<uint16_t>(bytes, 14, static_cast<uint16_t>(name.size()));
  store_be<uint32_t>(bytes, 16, date_seconds);
  store_be<uint32_t>(bytes, 20, date_nanoseconds);
  store_be<uint64_t>(bytes, 24, vm_clock);
  store_be<uint32_t>(bytes, 32,
                     vm_state_bytes > UINT32_MAX ? 0 : static_cast<uint32_t>(vm_state_bytes));
  store_be<uint32_t>(bytes, 36, static_cast<uint32_t>(extra));
  store_be<uint64_t>(bytes, 40, vm_state_bytes);
  store_be<uint64_t>(bytes, 48, disk_bytes);
  store_be<uint64_t>(bytes, 56, icount.value_or(UINT64_MAX));
  std::copy(unknown.begin(), unknown.end(), bytes.begin() + 64);
  store_text(bytes, 40 + extra, id);
  store_text(bytes, 40 + extra + id.size(), name);
}

BitmapEntry BitmapEntry::decode(ByteSpan bytes, const Header& header) {
  if (bytes.size() < 24) invalid("Broken bitmap directory");
  BitmapEntry entry;
  entry.table_offset = load_be<uint64_t>(bytes, 0);
  entry.table_entries = load_be<uint32_t>(bytes, 8);
  entry.flags = load_be<uint32_t>(bytes, 12);
  const uint8_t type = load_be<uint8_t>(bytes, 16);
  entry.granularity_bits = load_be<uint8_t>(bytes, 17);
  const uint16_t name_length = load_be<uint16_t>(bytes, 18);
  const uint32_t extra = load_be<uint32_t>(bytes, 20);
  const uint64_t used = uint64_t{24} + extra + name_length;
  if (used > bytes.size()) invalid("Broken bitmap directory");
  if (extra != 0) invalid("Bitmap extra data is not supported");
  entry.name = load_text(bytes, 24 + extra, name_length);
  entry.encoded_bytes = align_up(used, 8);
  if (entry.encoded_bytes > bytes.size()) invalid("Broken bitmap directory");
  const bool fits =
      entry.table_offset != 0 && is_aligned(entry.table_offset, header.cluster_bytes()) &&
      entry.table_entries != 0 && entry.table_entries <= 0x8000000 &&
      uint64_t{entry.table_entries} * header.cluster_bytes() <= (512u << 20) &&
      (entry.flags & ~(kInUse | kAuto)) == 0 && type == 1 && entry.granularity_bits >= 9 &&
      entry.granularity_bits <= 31 && name_length >= 1 && entry.name.size() == name_length &&
      name_length <= kMaxBitmapName &&
      // The length of one in use may be out of date.
      ((entry.flags & kInUse) != 0 ||
       div_ceil(div_ceil(header.size, uint64_t{1} << (entry.granularity_bits & 63)), 8) <=
           uint64_t{entry.table_entries} * header.cluster_bytes());
  if (!fits) invalid("Bitmap '" + entry.name + "' doesn't satisfy the constraints");
  return entry;
}

void BitmapEntry::encode(std::vector<std::byte>& directory) const {
  const size_t at = directory.size();
  directory.resize(at + align_up(24 + name.size(), 8));
  const MutableByteSpan bytes = MutableByteSpan(directory).subspan(at);
  store_be<uint64_t>(bytes, 0, table_offset);
  store_be<uint32_t>(bytes, 8, table_entries);
  store_be<uint32_t>(bytes, 12, flags);
  store_be<uint8_t>(bytes, 16, 1);
  store_be<uint8_t>(bytes, 17, granularity_bits);
  store_be<uint16_t>(bytes, 18, static_cast<uint16_t>(name.size()));
  store_text(bytes, 24, name);
}

uint64_t get_refcount(ByteSpan block, uint64_t index, unsigned order) {
  switch (order) {
    case 3:
      return load_be<uint8_t>(block, index);
    case 4:
      return load_be<uint16_t>(block, index * 2);
    case 5:
      return load_be<uint32_t>(block, index * 4);
    case 6:
      return load_be<uint64_t>(block, index * 8);
    default:
      break;
  }
  const unsigned bits = 1u << order;
  const auto byte = load_be<uint8_t>(block, index * bits / 8);
  return byte >> (index * bits % 8) & ((1u << bits) - 1);
}

void set_refcount(MutableByteSpan block, uint64_t index, unsigned order, uint64_t value) {
  switch (order) {
    case 3:
      store_be<uint8_t>(block, index, static_cast<uint8_t>(value));
      return;
    case 4:
      store_be<uint16_t>(block, index * 2, static_cast<uint16_t>(value));
      return;
    case 5:
      store_be<uint32_t>(block, index * 4, static_cast<uint32_t>(value));
      return;
    case 6:
      store_be<uint64_t>(block, index * 8, value);
      return;
    default:
      break;
  }
  // Counters narrower than a byte are packed from its low bits up.
  const unsigned bits = 1u << order;
  const unsigned shift = static_cast<unsigned>(index * bits % 8);
  const unsigned mask = ((1u << bits) - 1) << shift;
  auto byte = load_be<uint8_t>(block, index * bits / 8);
  byte = static_cast<uint8_t>((byte & ~mask) | static_cast<unsigned>(value) << shift);
  store_be<uint8_t>(block, index * bits / 8, byte);
}

}  // namespace cairn::qcow2
