#include <algorithm>
#include <filesystem>

#include "base/arith.h"
#include "block/context.h"
#include "format/vhdx/create.h"
#include "format/vhdx/node.h"

namespace cairn {

using namespace vhdx;

namespace vhdx {

// From the directory of the child, as Windows writes it.
std::string relative_parent(const std::string& name, const std::string& child) {
  namespace fs = std::filesystem;
  std::string path = name;
  if (fs::path(name).is_absolute()) {
    std::error_code failed;
    const fs::path from = fs::absolute(child, failed).parent_path();
    path = fs::path(name).lexically_relative(from.lexically_normal()).string();
  }
  if (path.find('\\') != std::string::npos || has_protocol_prefix(path))
    throw Error(ErrorKind::kInvalid,
                "'" + name + "' cannot be named as the parent of a VHDX image");
  std::replace(path.begin(), path.end(), '/', '\\');
  return path.starts_with("..") ? path : ".\\" + path;
}

}  // namespace vhdx

void VhdxNode::check_new_parent(bool none) const {
  if (!parameters_.has_parent)
    throw Error(ErrorKind::kUnsupported,
                "VHDX: the image is not a differencing image and cannot get a parent");
  if (none)
    throw Error(ErrorKind::kUnsupported, "VHDX: a differencing image always has a parent")
        .hint("`cairn convert` writes an image without one.");
}

Task<void> VhdxNode::adopt_parent(Node* parent) {
  check_new_parent(parent == nullptr);
  const auto* below = dynamic_cast<const VhdxNode*>(parent);
  if (below == nullptr)
    throw Error(ErrorKind::kUnsupported, "The parent of a VHDX image must be one, too");
  if (below->parameters().logical_sector != parameters_.logical_sector)
    throw Error(ErrorKind::kInvalid, "VHDX: the new parent has sectors of another size");
  locator_["parent_linkage"] = "{" + below->data_write_id().text() + "}";
  locator_.erase("parent_linkage2");
  co_return;
}

// A longer locator goes after the other items; table and locator change in one step of the log.
Task<void> VhdxNode::store_locator(const std::map<std::string, std::string>& values) {
  const std::vector<std::byte> locator = encode_locator(values);
  const Region region = regions_.get(kMetadataRegion);
  std::vector<std::byte> table(kTableBytes);
  co_await file_->read(region.offset, table);
  decode_items(table, region.length);
  const auto count = load_le<uint16_t>(table, 10);
  size_t own = 0;
  uint64_t place = kTableBytes;
  for (size_t i = 0; i < count; ++i) {
    const size_t at = 32 + i * 32;
    if (Uuid::load_guid(table, at) == kParentLocatorItem)
      own = at;
    else
      place = std::max(
          place, uint64_t{load_le<uint32_t>(table, at + 16)} + load_le<uint32_t>(table, at + 20));
  }
  place = align_up(place, 8);
  if (own == 0 || place + locator.size() > region.length)
    throw Error(ErrorKind::kNoSpace, "VHDX: the metadata region has no room for the parent's name");
  const uint64_t table_page = align_down(region.offset + own + 16, kSectorBytes);
  store_le<uint32_t>(table, own + 16, static_cast<uint32_t>(place));
  store_le<uint32_t>(table, own + 20, static_cast<uint32_t>(locator.size()));
  const PagePtr entry = co_await pages_->get(table_page);
  std::vector<PagePtr> pages;
  const uint64_t begin = region.offset + place;
  for (uint64_t at = align_down(begin, kSectorBytes); at < begin + locator.size();
       at += kSectorBytes) {
    PagePtr page = co_await pages_->get(at);
    pages.push_back(std::move(page));
  }
  if (has_log_)
    co_await journal_->begin(false);
  else
    co_await begin_change();
  pages_->change([&] {
    pages_->set_bytes(entry, region.offset + own + 16 - table_page,
                      ByteSpan(table).subspan(own + 16, 8));
    for (const PagePtr& page : pages) {
      const uint64_t from = std::max(begin, page->offset);
      const uint64_t to = std::min(begin + locator.size(), page->offset + kSectorBytes);
      pages_->set_bytes(page, from - page->offset,
                        ByteSpan(locator).subspan(from - begin, to - from));
    }
  });
  co_await commit();
}

Task<void> VhdxNode::change_backing(std::string name, std::string format) {
  if (read_only()) throw Error::system(EACCES);
  check_new_parent(name.empty());
  if (!format.empty() && format != "vhdx")
    throw Error(ErrorKind::kInvalid, "Invalid backing file format: " + format + ". Must be vhdx");
  std::map<std::string, std::string> values = locator_;
  for (const char* key : {"relative_path", "absolute_win32_path", "volume_path"}) values.erase(key);
  values["relative_path"] = relative_parent(name, filename());
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  co_await store_locator(values);
  locator_ = std::move(values);
  parent_ = name_of_parent();
}

}  // namespace cairn
