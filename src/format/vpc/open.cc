#include <fmt/core.h>

#include <algorithm>

#include "base/arith.h"
#include "base/utf16.h"
#include "block/context.h"
#include "format/vpc/node.h"

namespace cairn {

using namespace vpc;

namespace {
constexpr uint32_t kCacheBlockBytes = 512;
constexpr size_t kTableBlocks = 8192;
constexpr size_t kBitmapBlocks = 2048;
constexpr size_t kScanBytes = 1 << 20;
constexpr uint32_t kMaxLocatorBytes = 64 << 10;
constexpr const char* kTruncated =
    "block-vpc: free_data_block_offset points after the end of file. The image has been truncated.";

SizeRule size_rule(const Options& options) {
  const auto mode = options.string("force_size_calc");
  if (!mode) return SizeRule::kByCreator;
  if (*mode == "current_size") return SizeRule::kCurrentSize;
  if (*mode == "chs") return SizeRule::kGeometry;
  throw Error(ErrorKind::kInvalid, "Invalid size calculation mode: '" + *mode + "'");
}

// The part after the last slash or backslash.
std::string last_part(const std::string& path) {
  const size_t at = path.find_last_of("/\\:");
  return at == std::string::npos ? path : path.substr(at + 1);
}
}  // namespace

Task<void> VpcNode::load(OpenContext& request) {
  begin_opening(request.flags);
  const SizeRule rule = size_rule(request.options);
  std::vector<std::byte> sector(kFooterBytes);
  co_await file_->read(0, sector);
  const bool at_head = Footer::has_cookie(sector);
  const uint64_t length = align_up(file_->length(), kSector);
  if (!at_head) {
    if (length < kFooterBytes) throw Error(ErrorKind::kInvalid, "File too small for a VHD header");
    co_await file_->read(length - kFooterBytes, sector);
    if (!Footer::has_cookie(sector) || load_be<uint32_t>(sector, 60) != 2)
      throw Error(ErrorKind::kInvalid, "invalid VPC image")
          .hint(context().profile.explanations
                    ? "The file does not end with a footer. If it is a fixed disk that was cut "
                      "off, `-f raw` reads what is left."
                    : "");
  }
  footer_ = Footer::decode(sector);
  set_length(footer_.disk_bytes(rule));
  end_ = length - std::min<uint64_t>(length, kFooterBytes);
  if (!at_head) {
    co_await load_fixed(request);
  } else {
    if (fixed()) throw Error(ErrorKind::kInvalid, "invalid VPC image");
    co_await load_dynamic(request);
  }
  end_opening();
}

Task<void> VpcNode::load_fixed(OpenContext&) {
  if (this->length() > end_)
    throw Error(
        ErrorKind::kInvalid,
        fmt::format("the disk of {} bytes extends past the footer at {}", this->length(), end_));
  co_return;
}

Task<void> VpcNode::load_dynamic(OpenContext& request) {
  std::vector<std::byte> bytes(kHeaderBytes);
  const uint64_t at = footer_.header_offset;
  if (at > static_cast<uint64_t>(INT64_MAX) - kHeaderBytes)
    throw Error(ErrorKind::kInvalid, "Error reading dynamic VHD header");
  co_await file_->read(at, bytes);
  header_ = DynamicHeader::decode(bytes, length());
  if (!header_.checksum_good)
    context().warn(fmt::format("VHD: the checksum of the dynamic header at {} is wrong", at));
  if (header_.table_offset > static_cast<uint64_t>(INT64_MAX) - header_.table_bytes())
    throw Error(ErrorKind::kInvalid, "Error reading pagetable");
  const uint64_t file_end = align_up(file_->length(), kSector);
  if (!request.flags.salvage && header_.table_offset + uint64_t{header_.entries} * 4 > file_end)
    throw Error(ErrorKind::kInvalid, kTruncated);
  if (header_.table_offset < kFooterBytes || (header_.table_offset < at + kHeaderBytes &&
                                              at < header_.table_offset + header_.table_bytes()))
    throw Error(ErrorKind::kInvalid,
                fmt::format("the block allocation table at {} overlaps with the headers",
                            header_.table_offset));
  set_unit(header_.block_bytes);
  make_table();
  bitmaps_ = std::make_unique<TableCache>(this, *file_, "bitmaps", kCacheBlockBytes, kBitmapBlocks);
  // What is left is read one by one, and what is missing refused then.
  if (!request.flags.salvage) co_await check_table();
  if (!read_only()) {
    if (!is_aligned(header_.table_offset, kSector))
      throw Error(ErrorKind::kUnsupported,
                  "the block allocation table does not begin at a sector: the image can only be "
                  "read");
    // Blocks go where the footer is; after what else may be there.
    std::vector<std::byte> tail(kFooterBytes);
    co_await file_->read(end_, tail);
    if (!Footer::has_cookie(tail)) end_ = file_end;
    if (file_->reads_zero_when_created()) virgin_ = file_end;
  }
  if (differencing())
    co_await open_parent(request);
  else
    co_await request.open_backing({}, {});
}

void VpcNode::make_table() {
  table_ = std::make_unique<FlatTable<uint32_t, std::endian::big>>(
      this, *file_, "bat", header_.table_offset, header_.entries, kCacheBlockBytes, kTableBlocks);
}

// Every block is in the file, and after the headers; where two share space nothing is written.
Task<void> VpcNode::check_table() {
  const uint64_t block = header_.bitmap_bytes() + header_.block_bytes;
  const uint64_t table_end = header_.table_offset + header_.table_bytes();
  const uint64_t least = std::min(header_.table_offset, footer_.header_offset + kHeaderBytes);
  const uint64_t file_end = align_up(file_->length(), kSector);
  std::vector<uint32_t> places;
  std::vector<std::byte> part;
  const uint64_t needed = div_ceil(length(), header_.block_bytes);
  for (uint64_t done = 0; done < needed;) {
    const uint64_t count = std::min<uint64_t>(kScanBytes / 4, needed - done);
    part.resize(count * 4);
    co_await file_->read(header_.table_offset + done * 4, part);
    for (uint64_t i = 0; i < count; ++i) {
      const auto entry = load_be<uint32_t>(part, i * 4);
      if (entry == kUnused) continue;
      const uint64_t begin = uint64_t{entry} * kSector;
      if (begin + block > file_end) throw Error(ErrorKind::kInvalid, kTruncated);
      if (begin < least || (begin < table_end && begin + block > header_.table_offset))
        throw Error(
            ErrorKind::kInvalid,
            fmt::format("block {} at {} overlaps with the headers or the table", done + i, begin));
      if (!read_only()) places.push_back(entry);
    }
    done += count;
  }
  std::sort(places.begin(), places.end());
  for (size_t i = 1; i < places.size(); ++i)
    overlapping_ = overlapping_ || (places[i] - uint64_t{places[i - 1]}) * kSector < block;
  if (overlapping_)
    throw Error(ErrorKind::kDenied,
                "two blocks share space in the file: the image can only be read");
}

// The parent as a path that this system understands, or else its bare name next to the image.
Task<std::string> VpcNode::parent_path() {
  for (const uint32_t wanted : {kRelativeWindows, kAbsoluteWindows}) {
    for (const ParentLocator& locator : header_.locators) {
      if (locator.code != wanted || locator.length == 0) continue;
      if (locator.length > kMaxLocatorBytes || locator.offset > file_->length()) continue;
      std::vector<std::byte> text(locator.length);
      co_await file_->read(locator.offset, text);
      std::string path = from_utf16(text, false);
      if (path.empty()) continue;
      if (wanted == kAbsoluteWindows) co_return last_part(path);
      std::replace(path.begin(), path.end(), '\\', '/');
      while (path.starts_with("./")) path.erase(0, 2);
      // A colon before the first slash would be taken for a protocol.
      if (has_protocol_prefix(path)) path = last_part(path);
      co_return path;
    }
  }
  co_return last_part(header_.parent_name);
}

Task<void> VpcNode::open_parent(OpenContext& request) {
  parent_ = co_await parent_path();
  if (parent_.empty())
    throw Error(ErrorKind::kInvalid, "the differencing image does not say what its parent is");
  NodePtr parent = co_await request.open_backing(parent_, "vpc");
  if (!parent) co_return;
  const auto* below = dynamic_cast<const VpcNode*>(parent.get());
  const bool same = below == nullptr || below->footer_.id == header_.parent_id;
  add_child("backing", std::move(parent), ChildRole::kBacking);
  if (!same)
    throw Error(ErrorKind::kInvalid, "the parent '" + parent_ +
                                         "' is another disk than the one that this image was made "
                                         "on: its identifier is not " +
                                         header_.parent_id.text());
}

}  // namespace cairn
