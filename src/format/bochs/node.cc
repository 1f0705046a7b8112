#include "format/bochs/node.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/arith.h"
#include "block/context.h"
#include "block/driver.h"
#include "platform/directory.h"

namespace cairn {

using namespace bochs;

namespace {
// A bitmap of the largest extent is four of these.
constexpr uint32_t kBitmapBlockBytes = 512;
constexpr size_t kBitmapBlocks = 8192;
constexpr uint64_t kMaxLines = 100;

// "disk.img.redolog" belongs to "disk.img", "disk.img.AbCdEf" too when it is volatile.
std::string base_of(const std::string& name, Kind kind) {
  const size_t slash = platform::last_separator(name);
  const size_t dot = name.rfind('.');
  if (kind == Kind::kGrowing || dot == std::string::npos || dot == 0 || name.starts_with("json:") ||
      (slash != std::string::npos && dot <= slash + 1))
    return {};
  if (kind == Kind::kUndoable && name.substr(dot) != ".redolog") return {};
  return name.substr(slash == std::string::npos ? 0 : slash + 1, dot - (slash + 1));
}
}  // namespace

Task<void> BochsNode::load(OpenContext& request) {
  if (request.flags.writable) throw Error(ErrorKind::kDenied, "Image is read-only");
  set_read_only(true);
  std::vector<std::byte> sector(kHeaderBytes);
  co_await file_->read(
      0, MutableByteSpan(sector).first(std::min<uint64_t>(sector.size(), file_->length())));
  header_ = Header::decode(sector, file_->length(), context().profile.extensions);
  set_length(header_.size);
  mutable_limits().cluster_bytes = header_.extent_bytes;
  base_ = base_of(file_->filename(), header_.kind);
  if (header_.kind != Kind::kGrowing && !request.flags.metadata_only) {
    NodePtr base = co_await request.open_backing(base_, "raw");
    if (!base && !request.flags.no_backing)
      throw Error(ErrorKind::kInvalid, "The base of this redolog is not known")
          .hint(
              "Its name says nothing: give one with backing.driver=raw,backing.file.filename=NAME");
    if (base) {
      if (base->length() != header_.size && base->length() != align_up(header_.size, kSector))
        context().warn(fmt::format("Bochs: the base has {} bytes, the redolog {}", base->length(),
                                   header_.size));
      add_child("backing", std::move(base), ChildRole::kBacking);
    }
  }
  if (request.flags.metadata_only) co_return;
  std::vector<std::byte> bytes(header_.entries * size_t{4});
  co_await file_->read(header_.header_bytes, bytes);
  catalog_.resize(header_.entries);
  for (size_t i = 0; i < catalog_.size(); ++i) catalog_[i] = load_le<uint32_t>(bytes, i * 4);
  bitmaps_ =
      std::make_unique<TableCache>(this, *file_, "bitmaps", kBitmapBlockBytes, kBitmapBlocks);
}

Task<Mapping> BochsNode::map(uint64_t offset, uint64_t length) {
  const uint64_t extent = header_.extent_bytes;
  uint64_t index = offset / extent;
  Mapping result;
  if (catalog_[index] == kFree) {
    uint64_t end = (index + 1) * extent;
    while (end < offset + length && catalog_[++index] == kFree) end += extent;
    result.length = std::min(length, end - offset);
    co_return result;
  }
  const uint32_t number = catalog_[index];
  const uint64_t place = place_of(number);
  if (place + header_.bitmap_room() > file_->length())
    throw Error(ErrorKind::kCorrupt, "Input/output error")
        .hint(fmt::format("The catalog says that extent {} of the disk is extent {} of the file, "
                          "which ends before.",
                          index, number));
  // A bit for every sector, the least significant first.
  const uint64_t begin = offset % extent;
  const uint64_t end = std::min(begin + length, extent);
  bool here = false;
  TableCache::Ref ref;
  uint64_t at = begin;
  while (at < end) {
    const uint64_t byte = at / kSector / 8;
    const uint64_t block = place + align_down(byte, kBitmapBlockBytes);
    if (!ref || ref.offset() != block) ref = co_await bitmaps_->get(block);
    const auto bits = std::to_integer<unsigned>(ref.bytes()[byte % kBitmapBlockBytes]);
    const bool set = (bits >> (at / kSector % 8) & 1) != 0;
    if (at == begin) here = set;
    if (set != here) break;
    at = (at / kSector + 1) * kSector;
  }
  result.length = std::min(at, end) - begin;
  if (here) {
    result.kind = Mapping::Kind::kChild;
    result.host = file_;
    result.host_offset = place + header_.bitmap_room() + begin;
    if (result.host_offset + result.length > align_up(file_->length(), kSector))
      throw Error(ErrorKind::kCorrupt, "Input/output error")
          .hint(fmt::format("Extent {} of the file has sectors past the end of the file.", number));
  }
  co_return result;
}

// Whether the file has all sectors from BEGIN to END, in one extent, that are marked as written.
Task<bool> BochsNode::is_whole(uint64_t begin, uint64_t end) {
  if (place_of(catalog_[begin / header_.extent_bytes]) + header_.stride() <= file_->length())
    co_return true;
  try {
    while (begin < end) {
      const Mapping mapping = co_await map(begin, end - begin);
      begin += mapping.length;
    }
  } catch (const Error&) {
    co_return false;
  }
  co_return true;
}

// Two places of the disk must not share an extent, and none may be past the end of the file.
Task<CheckResult> BochsNode::check(CheckRequest request) {
  CheckResult result;
  uint64_t lines = 0;
  const auto finding = [&](const std::string& text) {
    ++result.corruptions;
    if (request.report && lines++ < kMaxLines) request.report("ERROR " + text);
  };
  const uint64_t places =
      (file_->length() - header_.data_begin() + header_.stride() - 1) / header_.stride();
  // No file has more extents than the catalog can name.
  std::vector<bool> used(std::min<uint64_t>(places, header_.entries), false);
  uint32_t previous = kFree;
  for (size_t i = 0; i < catalog_.size(); ++i) {
    const uint32_t number = catalog_[i];
    if (number == kFree) {
      previous = kFree;
      continue;
    }
    const std::string what = fmt::format("extent {} of the disk ", i);
    if (number >= used.size()) {
      finding(fmt::format("{}is extent {} of the file, past its end", what, number));
    } else if (used[number]) {
      finding(fmt::format("{}shares extent {} of the file with another one", what, number));
    } else {
      used[number] = true;
      const uint64_t begin = i * uint64_t{header_.extent_bytes};
      const bool whole =
          co_await is_whole(begin, std::min<uint64_t>(begin + header_.extent_bytes, length()));
      if (!whole) finding(what + "has sectors past the end of the file");
    }
    ++result.allocated_clusters;
    if (previous != kFree && number != previous + 1) ++result.fragmented_clusters;
    previous = number;
  }
  result.total_clusters = header_.entries;
  result.leaks = static_cast<uint64_t>(std::count(used.begin(), used.end(), false));
  co_return result;
}

}  // namespace cairn
