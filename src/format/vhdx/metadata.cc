#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "base/arith.h"
#include "base/utf16.h"
#include "format/vhdx/layout.h"

namespace cairn::vhdx {

const Uuid kParentLocatorItem = Uuid::parse("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C");

namespace {

constexpr std::string_view kTableSignature = "metadata";
constexpr unsigned kMaxUserItems = 1024;
constexpr uint32_t kUserItem = 1, kOfDisk = 2, kRequiredItem = 4;

struct Known {
  ItemId id;
  const char* name;
  Uuid uuid;
  uint32_t length;  // 0: any
  uint32_t flags;
};
const std::array<Known, 6> kKnown = {{
    {ItemId::kParameters, "file parameters", Uuid::parse("CAA16737-FA36-4D43-B3B6-33F0AA44E76B"), 8,
     kRequiredItem},
    {ItemId::kSize, "virtual disk size", Uuid::parse("2FA54224-CD1B-4876-B211-5DBED83BF4B8"), 8,
     kOfDisk | kRequiredItem},
    {ItemId::kDiskId, "virtual disk id", Uuid::parse("BECA12AB-B2E6-4523-93EF-C309E000C746"), 16,
     kOfDisk | kRequiredItem},
    {ItemId::kLogicalSector, "logical sector size",
     Uuid::parse("8141BF1D-A96F-4709-BA47-F233A8FAAB5F"), 4, kOfDisk | kRequiredItem},
    {ItemId::kPhysicalSector, "physical sector size",
     Uuid::parse("CDA348C7-445D-4471-9CC9-E9885251C556"), 4, kOfDisk | kRequiredItem},
    {ItemId::kParent, "parent locator", kParentLocatorItem, 0, kRequiredItem},
}};
const Uuid kLocatorType = Uuid::parse("B04AEFB7-D19E-4A81-B789-25B8E9445913");

[[noreturn]] void bad_metadata(const std::string& text) {
  throw Error(ErrorKind::kInvalid, "VHDX: " + text);
}

}  // namespace

std::map<ItemId, Item> decode_items(ByteSpan table, uint64_t region_length) {
  detail::check_bounds(table.size(), 0, kTableBytes);
  if (load_text(table, 0, kTableSignature.size()) != kTableSignature)
    bad_metadata("the metadata region does not begin with its signature");
  const auto count = load_le<uint16_t>(table, 10);
  if (count > kMaxEntries) bad_metadata(std::to_string(count) + " metadata items are too many");
  std::map<ItemId, Item> result;
  std::set<std::pair<std::string, bool>> seen;
  std::vector<std::pair<uint64_t, uint64_t>> places;
  unsigned users = 0;
  for (size_t i = 0; i < count; ++i) {
    const size_t at = 32 + i * 32;
    const Uuid id = Uuid::load_guid(table, at);
    const Item item{load_le<uint32_t>(table, at + 16), load_le<uint32_t>(table, at + 20)};
    const auto flags = load_le<uint32_t>(table, at + 24);
    const bool user = (flags & kUserItem) != 0;
    const auto known =
        std::find_if(kKnown.begin(), kKnown.end(), [&](const Known& k) { return k.uuid == id; });
    const std::string name = known != kKnown.end() && !user ? std::string(known->name) : id.text();
    if (!seen.emplace(id.text(), user).second)
      bad_metadata("the metadata item " + name + " is there twice");
    users += user ? 1 : 0;
    if (users > kMaxUserItems) bad_metadata("there are too many metadata items of users");
    if (item.length > kMaxItem ||
        (item.length != 0 && (item.offset < kTableBytes || item.offset > region_length ||
                              item.length > region_length - item.offset)))
      bad_metadata(fmt::format("the metadata item {} of {} bytes at {} is not inside of its region",
                               name, item.length, item.offset));
    if (item.length != 0) places.emplace_back(item.offset, uint64_t{item.offset} + item.length);
    if (known == kKnown.end() || user) {
      if ((flags & kRequiredItem) != 0)
        throw Error(ErrorKind::kUnsupported,
                    "VHDX: the required metadata item " + name + " is not known");
      continue;
    }
    if (item.length < std::max(known->length, 1u))
      bad_metadata(fmt::format("the metadata item {} has only {} bytes", name, item.length));
    result[known->id] = item;
  }
  std::sort(places.begin(), places.end());
  for (size_t i = 1; i < places.size(); ++i)
    if (places[i].first < places[i - 1].second)
      bad_metadata("metadata items overlap at " + std::to_string(places[i].first));
  for (const Known& known : kKnown)
    if (known.id != ItemId::kParent && !result.contains(known.id))
      throw Error(ErrorKind::kUnsupported,
                  std::string("VHDX: the metadata item ") + known.name + " is missing");
  return result;
}

void Parameters::check() const {
  if (block_bytes < kMiB || block_bytes > kMaxBlock || !is_power_of_two(block_bytes))
    bad_metadata(fmt::format("block size {} is not a power of two from 1 to 256 MiB", block_bytes));
  if (logical_sector != 512 && logical_sector != 4096)
    bad_metadata(fmt::format("logical sector size {} is neither 512 nor 4096", logical_sector));
  if (physical_sector != 512 && physical_sector != 4096)
    bad_metadata(fmt::format("physical sector size {} is neither 512 nor 4096", physical_sector));
  if (size > kMaxDisk)
    bad_metadata(fmt::format("the disk of {} bytes is larger than 64 TiB", size));
  if (!is_aligned(size, logical_sector))
    bad_metadata(fmt::format("the disk of {} bytes does not consist of whole sectors of {}", size,
                             logical_sector));
}

std::vector<std::byte> encode_metadata(const Parameters& parameters, ByteSpan locator) {
  std::vector<std::byte> out(kTableBytes + 40 + locator.size());
  store_text(out, 0, kTableSignature);
  const size_t count = locator.empty() ? kKnown.size() - 1 : kKnown.size();
  store_le<uint16_t>(out, 10, static_cast<uint16_t>(count));
  uint32_t place = kTableBytes;
  for (size_t i = 0; i < count; ++i) {
    const size_t at = 32 + i * 32;
    const uint32_t length =
        kKnown[i].length != 0 ? kKnown[i].length : static_cast<uint32_t>(locator.size());
    kKnown[i].uuid.store_guid(out, at);
    store_le<uint32_t>(out, at + 16, place);
    store_le<uint32_t>(out, at + 20, length);
    store_le<uint32_t>(out, at + 24, kKnown[i].flags);
    place += length;
  }
  const size_t items = kTableBytes;
  store_le<uint32_t>(out, items, parameters.block_bytes);
  store_le<uint32_t>(out, items + 4,
                     (parameters.leave_allocated ? 1u : 0u) | (parameters.has_parent ? 2u : 0u));
  store_le<uint64_t>(out, items + 8, parameters.size);
  parameters.disk_id.store_guid(out, items + 16);
  store_le<uint32_t>(out, items + 32, parameters.logical_sector);
  store_le<uint32_t>(out, items + 36, parameters.physical_sector);
  std::copy(locator.begin(), locator.end(), out.begin() + static_cast<ptrdiff_t>(items + 40));
  return out;
}

std::map<std::string, std::string> decode_locator(ByteSpan item) {
  if (item.size() < 20) bad_metadata("the parent locator ends before its header");
  if (Uuid::load_guid(item, 0) != kLocatorType)
    throw Error(ErrorKind::kUnsupported, "VHDX: the parent locator is of the unknown type " +
                                             Uuid::load_guid(item, 0).text());
  const auto count = load_le<uint16_t>(item, 18);
  std::map<std::string, std::string> result;
  const auto text = [&](uint32_t offset, uint16_t length) {
    if (offset == 0 || length == 0 || length % 2 != 0 || offset > item.size() ||
        length > item.size() - offset)
      bad_metadata(fmt::format("a text of the parent locator, {} bytes at {}, is not inside of it",
                               length, offset));
    return from_utf16(item.subspan(offset, length), false);
  };
  for (size_t i = 0; i < count; ++i) {
    const size_t at = 20 + i * 12;
    if (at + 12 > item.size()) bad_metadata("the parent locator ends inside of its entries");
    const std::string key = text(load_le<uint32_t>(item, at), load_le<uint16_t>(item, at + 8));
    const std::string value =
        text(load_le<uint32_t>(item, at + 4), load_le<uint16_t>(item, at + 10));
    if (!result.emplace(key, value).second)
      bad_metadata("the parent locator has '" + key + "' twice");
  }
  return result;
}

std::vector<std::byte> encode_locator(const std::map<std::string, std::string>& values) {
  std::vector<std::byte> out(20 + values.size() * 12);
  kLocatorType.store_guid(out, 0);
  store_le<uint16_t>(out, 18, static_cast<uint16_t>(values.size()));
  size_t at = 20;
  const auto put = [&](const std::string& text, size_t offset_at, size_t length_at) {
    const std::vector<std::byte> bytes = to_utf16(text, false);
    if (bytes.size() > UINT16_MAX) bad_metadata("'" + text + "' is too long for a parent locator");
    store_le<uint32_t>(out, offset_at, static_cast<uint32_t>(out.size()));
    store_le<uint16_t>(out, length_at, static_cast<uint16_t>(bytes.size()));
    out.insert(out.end(), bytes.begin(), bytes.end());
  };
  for (const auto& [key, value] : values) {
    put(key, at, at + 8);
    put(value, at + 4, at + 10);
    at += 12;
  }
  return out;
}

}  // namespace cairn::vhdx
