#include "format/vhdx/create.h"

#include <algorithm>
#include <filesystem>

#include "base/arith.h"
#include "base/utf16.h"
#include "block/open.h"
#include "format/vhdx/layout.h"
#include "format/vhdx/node.h"

namespace cairn::vhdx {

namespace {

constexpr uint64_t kMetadataBytes = kMiB;
constexpr uint64_t kReservedBytes = 5 * kMiB;  // metadata, and what QEMU leaves behind it
constexpr std::string_view kCreator = "Cairn";
constexpr size_t kPieceEntries = 128 << 10;

const OptionSchema kCreateOptions = {
    {"size", OptionType::kSize, "", "Virtual disk size; max of 64TB."},
    {"backing_file", OptionType::kString, "", "File name of the parent of a differencing image",
     true},
    {"backing_fmt", OptionType::kString, "", "Image format of the parent: vhdx", true},
    {"log_size", OptionType::kSize, "1048576", "Log size; min 1MB."},
    {"block_size", OptionType::kSize, "0",
     "Block Size; min 1MB, max 256MB. 0 means auto-calculate based on image size."},
    {"subformat", OptionType::kString, "",
     "VHDX format type, can be either 'dynamic' or 'fixed'. Default is 'dynamic'."},
    {"block_state_zero", OptionType::kBool, "",
     "Force use of payload blocks of type 'ZERO'. Non-standard, but default.  Do not set to 'off' "
     "when using 'qemu-img convert' with subformat=dynamic."},
    {"logical_sector_size", OptionType::kSize, "", "Logical sector size: 512 or 4096", true},
    {"physical_sector_size", OptionType::kSize, "",
     "Physical sector size: 512 or 4096; as the logical one by default", true},
};

struct Plan {
  Parameters parameters;
  uint64_t log_bytes = kMiB;
  bool zero_blocks = true;
};

uint64_t automatic_block(uint64_t size) {
  if (size > 32ull << 40) return 64 * kMiB;
  if (size > 100ull << 30) return 32 * kMiB;
  return size > 1ull << 30 ? 16 * kMiB : 8 * kMiB;
}

uint32_t sector_size(const Options& options, std::string_view key, uint32_t otherwise) {
  const uint64_t value = options.size(key).value_or(otherwise);
  if (value != 512 && value != 4096)
    throw Error(ErrorKind::kInvalid, std::string(key) + " must be 512 or 4096");
  return static_cast<uint32_t>(value);
}

Plan plan(const Options& options, uint64_t size) {
  Plan result;
  Parameters& disk = result.parameters;
  if (size > kMaxDisk) throw Error(ErrorKind::kInvalid, "Image size too large; max of 64TB");
  const uint64_t log = options.size("log_size").value_or(kMiB);
  if (log == 0) throw Error(ErrorKind::kInvalid, "Log size must be a multiple of 1 MB");
  if (log > UINT32_MAX - kMiB)
    throw Error(ErrorKind::kInvalid, "Log size must be smaller than 4 GB");
  result.log_bytes = align_up(log, kMiB);
  const std::string kind = options.string("subformat").value_or("dynamic");
  if (kind != "dynamic" && kind != "fixed")
    throw Error(ErrorKind::kInvalid, "Parameter 'subformat' does not accept value '" + kind + "'");
  uint64_t block = options.size("block_size").value_or(0);
  if (block == 0) block = automatic_block(size);
  block = std::min(align_up(std::min(block, kMaxBlock), kMiB), kMaxBlock);
  if (!is_power_of_two(block))
    throw Error(ErrorKind::kInvalid, "Block size must be a power of two");
  disk.block_bytes = static_cast<uint32_t>(block);
  disk.leave_allocated = kind == "fixed";
  disk.has_parent = options.string("backing_file").has_value();
  if (disk.has_parent && disk.leave_allocated)
    throw Error(ErrorKind::kInvalid, "A fixed image has no parent");
  disk.size = size;
  disk.disk_id = Uuid::random();
  disk.logical_sector = sector_size(options, "logical_sector_size", 512);
  disk.physical_sector = sector_size(options, "physical_sector_size", disk.logical_sector);
  result.zero_blocks = options.boolean("block_state_zero").value_or(true);
  disk.check();
  return result;
}

// The locator of a child of REQUEST's parent; takes from it what both must share.
Task<std::vector<std::byte>> locator_for(Context& context, const CreateRequest& request,
                                         Parameters& disk) {
  const std::string name = *request.options.string("backing_file");
  const std::string format = request.options.string("backing_fmt").value_or("vhdx");
  if (format != "vhdx")
    throw Error(ErrorKind::kUnsupported, "The parent of a VHDX image must be one, too");
  OpenRequest open;
  open.filename = resolve_backing_name(request.filename, name);
  open.format = "vhdx";
  open.flags.no_backing = true;
  NodePtr parent = co_await open_node(context, std::move(open));
  const auto* below = dynamic_cast<const VhdxNode*>(parent.get());
  std::map<std::string, std::string> values;
  if (below != nullptr) {
    const bool given = request.options.has("logical_sector_size");
    if (!given) disk.logical_sector = below->parameters().logical_sector;
    if (!request.options.has("physical_sector_size"))
      disk.physical_sector = below->parameters().physical_sector;
    disk.disk_id = below->parameters().disk_id;
    values["parent_linkage"] = "{" + below->data_write_id().text() + "}";
  }
  const bool same = below != nullptr && disk.logical_sector == below->parameters().logical_sector;
  co_await parent->close();
  if (!same)
    throw Error(ErrorKind::kInvalid, "The parent '" + name + "' has sectors of another size");
  disk.check();
  values["relative_path"] = relative_parent(name, request.filename);
  co_return encode_locator(values);
}

// The table in pieces: it may be large.
Task<void> write_table(Node& file, const Plan& what, uint64_t table, uint64_t data) {
  const Geometry geometry = Geometry::of(what.parameters);
  const bool fixed = what.parameters.leave_allocated;
  if (what.parameters.has_parent || (!fixed && !what.zero_blocks)) co_return;
  std::vector<std::byte> piece;
  for (uint64_t done = 0; done < geometry.entries;) {
    const uint64_t count = std::min<uint64_t>(kPieceEntries, geometry.entries - done);
    piece.assign(count * 8, std::byte{0});
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t index = done + i;
      if (index % (geometry.chunk_blocks + 1) == geometry.chunk_blocks) continue;
      const uint64_t block = index - index / (geometry.chunk_blocks + 1);
      const Entry entry = fixed ? Entry::make(kPresent, data + block * what.parameters.block_bytes)
                                : Entry::make(kZeroBlock, 0);
      store_le<uint64_t>(piece, i * 8, entry.value);
    }
    co_await file.write(table + done * 8, piece);
    done += count;
  }
}

}  // namespace

const OptionSchema& creation_options() { return kCreateOptions; }

// Headers come last: until then it is no image.
Task<void> create(Context& context, CreateRequest request) {
  Plan what = plan(request.options, request.size);
  Parameters& disk = what.parameters;
  std::vector<std::byte> locator;
  if (disk.has_parent) locator = co_await locator_for(context, request, disk);
  Node& file = *request.file;
  const Geometry geometry = Geometry::of(disk);
  const uint64_t table = kMiB + what.log_bytes;
  const uint64_t table_bytes = align_up(std::max<uint64_t>(geometry.entries * 8, 1), kMiB);
  if (table_bytes > UINT32_MAX)
    throw Error(ErrorKind::kTooLarge, "The block allocation table would be too large");
  const uint64_t metadata = table + table_bytes;
  const uint64_t data = metadata + kReservedBytes;
  const uint64_t end = data + (disk.leave_allocated ? geometry.blocks * disk.block_bytes : 0);
  if (file.length() < end) co_await file.resize({.length = end, .exact = false});
  std::vector<std::byte> start(kSignature.size());
  store_text(start, 0, kSignature);
  const std::vector<std::byte> creator = to_utf16(kCreator, false);
  start.insert(start.end(), creator.begin(), creator.end());
  co_await file.write(0, start);
  co_await write_table(file, what, table, data);
  const std::vector<std::byte> items = encode_metadata(disk, locator);
  co_await file.write(metadata, items);
  RegionTable regions;
  regions.regions.push_back({kBatRegion, table, static_cast<uint32_t>(table_bytes), true});
  regions.regions.push_back({kMetadataRegion, metadata, kMetadataBytes, true});
  std::vector<std::byte> bytes(kTableBytes);
  regions.encode(bytes);
  for (const uint64_t place : kRegionOffsets) co_await file.write(place, bytes);
  Header header;
  header.file_write = Uuid::random();
  header.data_write = Uuid::random();
  header.log_offset = kMiB;
  header.log_length = static_cast<uint32_t>(what.log_bytes);
  bytes.assign(kHeaderBytes, std::byte{0});
  for (const uint64_t place : kHeaderOffsets) {
    ++header.sequence;
    header.encode(bytes);
    co_await file.write(place, bytes);
  }
}

}  // namespace cairn::vhdx
