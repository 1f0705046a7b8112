#include <fmt/core.h>

#include <algorithm>
#include <filesystem>

#include "base/arith.h"
#include "base/utf16.h"
#include "block/context.h"
#include "format/vpc/create.h"
#include "format/vpc/node.h"

namespace cairn {

using namespace vpc;

namespace {

constexpr uint32_t kNoLocator = 0;

// The place of the locator CODE in LOCATORS, or one for it.
ParentLocator& locator_place(std::array<ParentLocator, ParentLocator::kCount>& locators,
                             uint32_t code) {
  for (const uint32_t wanted : {code, kNoLocator})
    for (ParentLocator& one : locators)
      if (one.code == wanted) return one;
  throw Error(ErrorKind::kNoSpace, "VHD: the header has no room for the parent's name");
}

}  // namespace

void VpcNode::check_new_parent(bool none) const {
  if (!differencing())
    throw Error(ErrorKind::kUnsupported,
                "VHD: the image is not a differencing image and cannot get a parent");
  if (none)
    throw Error(ErrorKind::kUnsupported, "VHD: a differencing image always has a parent")
        .hint("`cairn convert` writes an image without one.");
}

Task<void> VpcNode::adopt_parent(Node* parent) {
  check_new_parent(parent == nullptr);
  const auto* below = dynamic_cast<const VpcNode*>(parent);
  if (below == nullptr)
    throw Error(ErrorKind::kUnsupported, "The parent of a VHD image must be one, too");
  if (below->length() != length())
    throw Error(
        ErrorKind::kInvalid,
        fmt::format("VHD: a differencing image has the size of its parent, {} bytes, not {}",
                    below->length(), length()));
  header_.parent_id = below->footer_.id;
  co_return;
}

// The names go after the last block, the footer after them; the header makes them true.
Task<void> VpcNode::change_backing(std::string name, std::string format) {
  namespace fs = std::filesystem;
  if (read_only()) throw Error::system(EACCES);
  check_new_parent(name.empty());
  if (!format.empty() && format != "vpc")
    throw Error(ErrorKind::kInvalid, "Invalid backing file format: " + format + ". Must be vpc");
  const std::string path = resolve_backing_name(filename(), name);
  if (name.find('\\') != std::string::npos || has_protocol_prefix(path))
    throw Error(ErrorKind::kInvalid, "'" + name + "' cannot be named as the parent of a VHD image");
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  co_await flush_mapped();
  DynamicHeader changed = header_;
  for (ParentLocator& one : changed.locators)
    if (one.code == kMacUrl) one = {};
  std::vector<std::byte> texts;
  const ParentPaths paths = ParentPaths::of(path, filename());
  for (const auto& [code, text] :
       {std::pair(kRelativeWindows, paths.relative), std::pair(kAbsoluteWindows, paths.whole)}) {
    const std::vector<std::byte> bytes = windows_path(text);
    ParentLocator& one = locator_place(changed.locators, code);
    one.code = code;
    one.offset = end_ + texts.size();
    one.length = static_cast<uint32_t>(bytes.size());
    one.space = static_cast<uint32_t>(align_up(bytes.size(), kSector));
    texts.insert(texts.end(), bytes.begin(), bytes.end());
    texts.resize(align_up(texts.size(), kSector));
  }
  changed.parent_name = fs::path(paths.whole).filename().string();
  std::vector<std::byte> encoded(kHeaderBytes);
  changed.encode(encoded);
  const uint64_t place = end_;
  co_await write_footer(place + texts.size());
  co_await file_->flush();
  co_await file_->write(place, texts);
  end_ = place + texts.size();
  virgin_ = std::max(virgin_, end_);
  co_await file_->flush();
  co_await file_->write(footer_.header_offset, encoded);
  co_await file_->flush();
  header_ = std::move(changed);
  parent_ = co_await parent_path();
}

}  // namespace cairn
