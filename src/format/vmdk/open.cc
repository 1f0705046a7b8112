#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "base/arith.h"
#include "block/context.h"
#include "format/vmdk/node.h"
#include "platform/directory.h"

namespace cairn {

using namespace vmdk;

namespace {

constexpr uint64_t kMaxDescriptorBytes = 1 << 20;
// The most bytes past the end of a stream before its footer: transfer tools pad files.
constexpr uint64_t kMaxPadding = 1 << 20;
constexpr size_t kTableCacheBytes = 16 << 20;
// All directories of a disk together.
constexpr uint64_t kMaxDirectoryEntries = 64 << 20;

bool in_list(std::string_view word, std::initializer_list<std::string_view> list) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

// Throws for kinds of disks that are not made of files that we read.
void check_create_type(const std::string& type) {
  if (in_list(type, {"monolithicFlat", "vmfs", "vmfsSparse", "seSparse", "twoGbMaxExtentSparse",
                     "twoGbMaxExtentFlat", "2GbMaxExtentSparse", "2GbMaxExtentFlat", "custom",
                     "vmfsThin", "vmfsPreallocated", "vmfsEagerZeroedThick"}))
    return;
  throw Error(ErrorKind::kUnsupported, "Unsupported image type '" + type + "'");
}

Task<std::string> read_text(Node& file, uint64_t offset, uint64_t length) {
  std::vector<std::byte> bytes(length);
  co_await file.read(offset, bytes);
  co_return load_text(bytes, 0, bytes.size());
}

}  // namespace

Task<void> VmdkNode::load(OpenContext& request) {
  metadata_only_ = request.flags.metadata_only;
  for_check_ = request.flags.for_check;
  begin_opening(request.flags);
  co_await read_descriptor();
  co_await open_parts(request);
  set_geometry();
  co_await open_parent(request);
  end_opening();
}

Task<void> VmdkNode::read_descriptor() {
  const uint64_t length = file_->length();
  if (length == 0) invalid("File is too small, not a valid image");
  std::vector<std::byte> head(kSector);
  co_await file_->read(0, MutableByteSpan(head).first(std::min<uint64_t>(length, head.size())));
  if (is_cowd(head)) refuse_extent();
  if (!is_sparse(head)) {
    if (length > kMaxDescriptorBytes) invalid("invalid VMDK image descriptor");
    const std::string text = co_await read_text(*file_, 0, length);
    descriptor_ = Descriptor::parse(text, false);
  } else {
    bool footer = false;
    const SparseHeader header = co_await read_sparse_header(*file_, &footer);
    if (header.version > 3) header.check(length);
    const auto end = checked_add(header.descriptor_offset, header.descriptor_sectors);
    if (header.descriptor_offset == 0 || header.descriptor_sectors == 0) refuse_extent();
    if (!end || *end > div_ceil(length, kSector) ||
        header.descriptor_sectors > kMaxDescriptorBytes / kSector)
      invalid("invalid VMDK image descriptor: it is outside the file");
    descriptor_offset_ = header.descriptor_offset * kSector;
    descriptor_bytes_ = header.descriptor_sectors * kSector;
    const std::string text = co_await read_text(*file_, descriptor_offset_, descriptor_bytes_);
    // Some programs leave room for a descriptor in every extent.
    if (text.find_first_not_of('\0') == std::string::npos) refuse_extent();
    embedded_ = header.capacity != 0;
    descriptor_ = Descriptor::parse(text, embedded_);
  }
  if (embedded_) {
    create_type_ = "monolithicSparse";
    ExtentLine line;
    line.file = file_->filename();
    auto part = std::make_unique<Part>();
    part->line = line;
    part->embedded = true;
    part->kind = Kind::kSparse;
    part->file = file_;
    parts_.push_back(std::move(part));
    co_return;
  }
  create_type_ = descriptor_.create_type();
  check_create_type(create_type_);
  if (descriptor_.extents().empty()) invalid("The descriptor has no extents");
  if (descriptor_.version() < 1 || descriptor_.version() > 3) {
    if (!read_only()) invalid("The descriptor is of a version that is only read");
    context().warn("VMDK: the descriptor is of an unknown version");
  }
}

Task<SparseHeader> VmdkNode::read_sparse_header(Node& file, bool* footer) {
  std::vector<std::byte> bytes(kSector);
  const uint64_t have = std::min<uint64_t>(file.length(), kSector);
  if (have == 0) invalid("File is too small, not a valid image");
  co_await file.read(0, MutableByteSpan(bytes).first(have));
  SparseHeader header = SparseHeader::decode(bytes);
  *footer = header.gd_offset == kGdAtEnd;
  if (!*footer) co_return header;
  std::exception_ptr error;
  try {
    header = co_await read_footer(file);
  } catch (Error& caught) {
    error = std::make_exception_ptr(
        caught.hint("`check -r all` rebuilds it from the grains that are there."));
  }
  if (!error) co_return header;
  // Only a check has a use for the rest.
  lost_footer_ = for_check_ && header.compressed() && header.markers();
  if (!lost_footer_) std::rethrow_exception(error);
  co_return header;
}

// The footer is the last sector that is not zero: the end-of-stream marker after it is, and so is
// what transfer tools append.
Task<SparseHeader> VmdkNode::read_footer(Node& file) {
  const uint64_t end = align_down(file.length(), kSector);
  const uint64_t begin = end > kMaxPadding ? end - kMaxPadding : 0;
  std::vector<std::byte> tail(end - begin);
  co_await file.read(begin, tail);
  uint64_t at = tail.size();
  while (at >= kSector && is_zero(ByteSpan(tail).subspan(at - kSector, kSector))) at -= kSector;
  const bool ended = at != tail.size();
  if (!ended || at < 2 * kSector) invalid("Invalid footer");
  const ByteSpan sector = ByteSpan(tail).subspan(at - kSector, kSector);
  const Marker marker = Marker::decode(ByteSpan(tail).subspan(at - 2 * kSector, kSector));
  if (!is_sparse(sector) || marker.bytes != 0 || marker.type != Marker::kFooter)
    invalid("Invalid footer");
  const SparseHeader header = SparseHeader::decode(sector);
  if (header.gd_offset == kGdAtEnd) invalid("Invalid footer");
  co_return header;
}

// --- the files of the extents ---

std::string VmdkNode::part_path(const OpenContext& request, const std::string& name) const {
  if (platform::is_absolute(name)) return name;
  std::string base = file_->filename();
  if (base.starts_with("json:") || file_->driver().name() != "file")
    invalid("Cannot use relative paths with VMDK descriptor file '" + request.filename +
            "': Cannot generate a base directory for " + std::string(file_->driver().name()) +
            " nodes");
  const size_t slash = platform::last_separator(base);
  std::string path = slash == std::string::npos ? name : base.substr(0, slash + 1) + name;
  // A plain name, whatever colons it has.
  if (has_protocol_prefix(path)) path.insert(0, "./");
  return path;
}

Task<NodePtr> VmdkNode::open_part_file(OpenContext& request, const ExtentLine& line, size_t index) {
  const std::string path = part_path(request, line.file);
  if (same_file(path, file_->filename()))
    invalid("Extent '" + line.file + "' is the descriptor itself");
  const bool writable = request.flags.writable;
  if (line.access != Access::kReadWrite || line.type == ExtentType::kSeSparse)
    request.flags.writable = false;
  std::exception_ptr error;
  NodePtr node;
  try {
    node = co_await request.open_reference("extents." + std::to_string(index), path);
  } catch (Error& caught) {
    if (caught.message().find(path) == std::string::npos) caught.context(path);
    error = std::make_exception_ptr(caught);
  }
  request.flags.writable = writable;
  if (error) std::rethrow_exception(error);
  co_return node;
}

Task<void> VmdkNode::open_parts(OpenContext& request) {
  if (embedded_) {
    co_await load_part(*parts_.front());
    co_return;
  }
  const bool names_only =
      metadata_only_ && request.flags.references.mode == ReferencePolicy::Mode::kDeny;
  std::vector<std::string> sparse_paths;
  size_t index = 0;
  for (const ExtentLine& line : descriptor_.extents()) {
    auto part = std::make_unique<Part>();
    part->line = line;
    const bool flat = line.type == ExtentType::kFlat || line.type == ExtentType::kVmfs;
    part->kind = line.type == ExtentType::kZero       ? Kind::kZero
                 : flat                               ? Kind::kFlat
                 : line.type == ExtentType::kSeSparse ? Kind::kSeSparse
                                                      : Kind::kSparse;
    part->name = line.file;
    if (part->kind == Kind::kSeSparse && !read_only())
      throw Error(ErrorKind::kUnsupported, "No write support for seSparse images available");
    if (part->kind != Kind::kZero && !names_only) {
      // Several pieces may be in one raw file: it is opened and locked once.
      const std::string path = part_path(request, line.file);
      part->name = path;
      const auto known = std::find_if(flat_files_.begin(), flat_files_.end(),
                                      [&](const auto& one) { return flat && one.first == path; });
      if (!flat && std::find(sparse_paths.begin(), sparse_paths.end(), path) != sparse_paths.end())
        invalid("Extent '" + line.file + "' is named twice");
      if (known != flat_files_.end()) {
        part->file = known->second;
      } else {
        NodePtr node = co_await open_part_file(request, line, index);
        part->file = node.get();
        add_child("extents." + std::to_string(index), std::move(node), ChildRole::kExtent);
        if (flat)
          flat_files_.emplace_back(path, part->file);
        else
          sparse_paths.push_back(path);
      }
      ++index;
    }
    if (names_only)
      part->length = line.sectors * kSector;
    else
      co_await load_part(*part);
    parts_.push_back(std::move(part));
  }
}

Task<void> VmdkNode::load_part(Part& part) {
  part.writable = !read_only() && part.line.access == Access::kReadWrite &&
                  part.kind != Kind::kZero && part.kind != Kind::kSeSparse;
  if (part.embedded) part.name = file_->filename();
  if (part.kind == Kind::kZero) {
    part.length = part.line.sectors * kSector;
    co_return;
  }
  if (part.kind == Kind::kFlat) {
    part.length = part.line.sectors * kSector;
    part.file_offset = part.line.offset * kSector;
    any_flat_ = true;
    if (part.file_offset + part.length > align_up(part.file->length(), kSector)) {
      const std::string text =
          fmt::format("Extent '{}' is shorter than its line in the descriptor says: {} bytes",
                      part.line.file, part.file->length());
      if (part.writable) invalid(text);
      // Where it reads as zeroes a warning follows when the rest is read.
      if (context().profile.past_end == PastEnd::kRefuse) context().warn("VMDK: " + text);
    }
    co_return;
  }
  std::exception_ptr error;
  try {
    std::vector<std::byte> head(kSector);
    const uint64_t have = std::min<uint64_t>(part.file->length(), kSector);
    if (have == 0) invalid("File is too small, not a valid image");
    co_await part.file->read(0, MutableByteSpan(head).first(have));
    if (part.kind == Kind::kSeSparse) {
      co_await load_sesparse(part);
    } else {
      part.kind = Kind::kSparse;
      if (is_cowd(head))
        co_await load_cowd(part);
      else
        co_await load_kdmv(part);
    }
  } catch (Error& caught) {
    if (!part.embedded) caught.context("Extent '" + part.line.file + "'");
    error = std::make_exception_ptr(caught);
  }
  if (error) std::rethrow_exception(error);
}

Task<void> VmdkNode::load_kdmv(Part& part) {
  part.header = co_await read_sparse_header(*part.file, &part.footer);
  const SparseHeader& header = part.header;
  if (lost_footer_)
    header.check_sizes(part.file->length());
  else
    header.check(part.file->length());
  if (part.writable && header.version == 3 && !header.compressed())
    throw Error(ErrorKind::kDenied, "VMDK version 3 must be read only");
  if ((header.flags & ~kKnownFlags) != 0 || header.compression > 1) {
    if (part.writable)
      throw Error(ErrorKind::kDenied, "The header has unknown features: the image is only read");
    context().warn("VMDK: the header has unknown features");
  }
  part.cowd = false;
  part.grain = header.grain * kSector;
  part.per_table = header.entries;
  part.table_bytes = header.table_sectors() * kSector;
  part.compressed = header.compressed();
  part.markers = part.compressed && (header.flags & kFlagMarkers) != 0;
  part.zeroed = header.zeroed();
  part.redundant = header.redundant();
  part.table_count = header.tables();
  part.gd_offset = header.gd_offset * kSector;
  part.rgd_offset = part.redundant ? header.rgd_offset * kSector : 0;
  part.data_begin = kSector;
  if (header.descriptor_offset != 0 && header.descriptor_offset < header.overhead)
    part.data_begin =
        std::min(header.descriptor_offset + header.descriptor_sectors, header.overhead) * kSector;
  finish_part(part, header.capacity * kSector);
  if (metadata_only_) co_return;
  co_await load_directories(part);
  if (embedded_ && part.compressed) {
    stream_ = true;
    forward_ = false;
  }
}

// Where one of two directories cannot be read the other one stands for both.
Task<void> VmdkNode::load_directories(Part& part) {
  if (lost_footer_) {
    part.gd = std::make_unique<std::atomic<uint64_t>[]>(part.table_count);
    co_return;
  }
  const uint64_t length = part.file->length();
  bool first = part.header.directory_inside(length);
  bool second = part.redundant && part.header.redundant_inside(length);
  std::exception_ptr error;
  try {
    if (first) co_await load_directory(part, part.gd_offset, part.gd);
  } catch (const Error&) {
    error = std::current_exception();
    first = false;
  }
  try {
    if (second) co_await load_directory(part, part.rgd_offset, part.rgd);
  } catch (const Error&) {
    if (!first) throw;
    error = std::current_exception();
    second = false;
  }
  if (!first && !second) std::rethrow_exception(error);
  if (first && (second || !part.redundant)) co_return;
  part.lost = first ? Part::Lost::kRedundant : Part::Lost::kPrimary;
  part.redundant = false;
  if (!first) part.gd = std::move(part.rgd);
  const std::string text =
      fmt::format("The {}grain directory (sector {}) {}", first ? "redundant " : "",
                  first ? part.header.rgd_offset : part.header.gd_offset,
                  error ? "cannot be read" : "is outside the file");
  if (part.writable && !for_check_)
    throw Error(ErrorKind::kDenied,
                text + ": until `check -r all` rebuilds it the image can only be read");
  context().warn("VMDK: " + text + "; the other one counts");
}

Task<void> VmdkNode::load_cowd(Part& part) {
  std::vector<std::byte> bytes(CowdHeader::kBytes);
  if (part.file->length() < bytes.size()) invalid("File is too small, not a valid image");
  co_await part.file->read(0, bytes);
  const CowdHeader header = CowdHeader::decode(bytes, part.file->length());
  part.cowd = true;
  part.grain = uint64_t{header.grain} * kSector;
  part.per_table = CowdHeader::kEntries;
  part.table_bytes = CowdHeader::kEntries * 4;
  part.table_count = div_ceil(header.sectors, uint64_t{header.grain} * CowdHeader::kEntries);
  part.gd_offset = uint64_t{header.gd_offset} * kSector;
  part.data_begin = CowdHeader::kBytes;
  finish_part(part, uint64_t{header.sectors} * kSector);
  if (!metadata_only_) co_await load_directory(part, part.gd_offset, part.gd);
}

Task<void> VmdkNode::load_sesparse(Part& part) {
  std::vector<std::byte> bytes(kSector);
  co_await part.file->read(
      0, MutableByteSpan(bytes).first(std::min<uint64_t>(part.file->length(), kSector)));
  part.sesparse = SeSparseHeader::decode(bytes, part.file->length());
  co_await part.file->read(part.sesparse.volatile_offset * kSector, bytes);
  SeSparseHeader::check_volatile(bytes);
  part.grain = SeSparseHeader::kGrainSectors * kSector;
  part.per_table = SeSparseHeader::kEntries;
  part.table_bytes = SeSparseHeader::kTableSectors * kSector;
  part.table_count = div_ceil(part.sesparse.capacity * kSector, part.coverage());
  part.gd_offset = part.sesparse.directory_offset * kSector;
  part.data_begin = kSector;
  finish_part(part, part.sesparse.capacity * kSector);
  if (!metadata_only_) co_await load_directory(part, part.gd_offset, part.gd);
}

void VmdkNode::finish_part(Part& part, uint64_t bytes) {
  part.length = bytes;
  if (bytes == 0) invalid("The extent has no sectors");
  if (!part.embedded) {
    const uint64_t told = part.line.sectors * kSector;
    if (bytes < told)
      invalid(fmt::format("The header says {} sectors, the descriptor {}", bytes / kSector,
                          part.line.sectors));
    if (bytes != told)
      context().warn("VMDK: extent '" + part.line.file +
                     "' is larger than its line in the descriptor says");
  }
  const uint64_t block = std::min<uint64_t>(part.table_bytes, 4096);
  const size_t share = std::max<size_t>(
      kTableCacheBytes / std::max<size_t>(descriptor_.extents().size(), 1), 16 * block);
  part.tables = std::make_unique<TableCache>(this, *part.file, "grain-tables",
                                             static_cast<uint32_t>(block), share / block);
  part.tables->set_before_write([this, &part] { return complete_last_grain(part); });
  part.next = align_up(part.file->length(), part.grain);
  part.virgin = part.file->reads_zero_when_created() ? part.next : UINT64_MAX;
}

Task<void> VmdkNode::load_directory(Part& part, uint64_t offset,
                                    std::unique_ptr<std::atomic<uint64_t>[]>& to) {
  uint64_t total = part.table_count;
  for (const auto& other : parts_) total += other->table_count;
  if (total > kMaxDirectoryEntries) invalid("L1 size too big");
  to = std::make_unique<std::atomic<uint64_t>[]>(part.table_count);
  const uint64_t width = part.kind == Kind::kSeSparse ? 8 : 4;
  std::vector<std::byte> bytes;
  for (uint64_t at = 0; at < part.table_count;) {
    const uint64_t count = std::min<uint64_t>(part.table_count - at, (1 << 20) / width);
    bytes.resize(count * width);
    co_await read_table(*part.file, offset + at * width, bytes);
    for (uint64_t i = 0; i < count; ++i)
      to[at + i].store(
          width == 8 ? load_le<uint64_t>(bytes, i * 8) : uint64_t{load_le<uint32_t>(bytes, i * 4)},
          std::memory_order_relaxed);
    at += count;
  }
}

// What the parts add up to.
void VmdkNode::set_geometry() {
  uint64_t total = 0;
  uint64_t largest = 0;
  bool alike = true;
  for (const auto& part : parts_) {
    part->begin = total;
    const auto sum = checked_add(total, part->length);
    if (!sum || *sum > static_cast<uint64_t>(INT64_MAX))
      throw Error(ErrorKind::kTooLarge, "Could not refresh total sector count: File too large");
    total = *sum;
    alike = alike && part->grain == parts_.front()->grain;
    largest = std::max(largest, part->grain);
  }
  set_length(total);
  for (const auto& part : parts_) {
    if (part->grain != 0 && (part->begin % part->grain != 0 || !alike)) uneven_ = true;
  }
  if (stream_) create_type_ = "streamOptimized";
  if (embedded_ && parts_.front()->compressed) create_type_ = "streamOptimized";
  Limits& limits = mutable_limits();
  limits.cluster_bytes = alike ? largest : 0;
  limits.zero_alignment = std::max<uint64_t>(largest, 1);
  limits.discard_alignment = std::max<uint64_t>(largest, 1);
}

Value VmdkNode::specific_info() const {
  Value result = Value::object();
  result.set("cid", uint64_t{descriptor_.cid()});
  result.set("parent-cid", uint64_t{descriptor_.parent_cid()});
  result.set("create-type", create_type_);
  Value extents = Value::array();
  for (const auto& part : parts_) {
    Value one = Value::object();
    if (part->compressed) one.set("compressed", true);
    one.set("virtual-size", part->length);
    one.set("filename", part->file != nullptr ? part->file->filename() : part->line.file);
    if (part->grain != 0) one.set("cluster-size", part->grain);
    one.set("format", part->embedded ? std::string() : std::string(to_string(part->line.type)));
    extents.push_back(std::move(one));
  }
  result.set("extents", std::move(extents));
  return result;
}

}  // namespace cairn
