#include <sys/stat.h>

#include <cctype>

#include "block/context.h"
#include "block/sibling_image.h"
#include "format/vmdk/node.h"

namespace cairn {

using namespace vmdk;

namespace {

bool is_there(const std::string& path) {
  struct stat status = {};
  return ::stat(path.c_str(), &status) == 0;
}

// The descriptor in START, the first bytes of a file: all of them, or a part of a sparse extent.
std::string_view descriptor_in(ByteSpan start) {
  std::string_view text(reinterpret_cast<const char*>(start.data()), start.size());
  if (!is_sparse(start)) return looks_like_descriptor(text) ? text : std::string_view();
  if (start.size() < kSector) return {};
  const SparseHeader header = SparseHeader::decode(start);
  const uint64_t first = header.descriptor_offset;
  if (first == 0 || first >= text.size() / kSector) return {};
  text.remove_prefix(first * kSector);
  return text.substr(
      0, std::min<uint64_t>(header.descriptor_sectors, start.size() / kSector) * kSector);
}

bool is_image_with(ByteSpan start, const Uuid& uuid) {
  try {
    const std::string_view text = descriptor_in(start);
    if (text.empty()) return false;
    const std::string value = database_value(text.substr(0, text.find('\0')), "ddb.uuid.image");
    return !value.empty() && Uuid::parse(value) == uuid;
  } catch (const Error&) {
    return false;
  }
}

// Where the descriptor of the extent FILE would be, by the rules of the programs that write them:
// disk-s001.vmdk, disk-f001.vmdk, disk-flat.vmdk and disk-delta.vmdk belong to disk.vmdk.
std::string descriptor_name(const std::string& file) {
  const size_t dot = file.rfind('.');
  const size_t dash = file.rfind('-');
  if (dot == std::string::npos || dash == std::string::npos || dash > dot) return {};
  const std::string mark = file.substr(dash + 1, dot - dash - 1);
  bool numbered = mark.size() >= 4 && (mark[0] == 's' || mark[0] == 'f');
  for (size_t i = 1; i < mark.size(); ++i)
    numbered = numbered && std::isdigit(static_cast<unsigned char>(mark[i])) != 0;
  if (!numbered && mark != "flat" && mark != "delta" && mark != "sesparse") return {};
  return file.substr(0, dash) + file.substr(dot);
}

}  // namespace

void VmdkNode::refuse_extent() const {
  std::string text =
      "invalid VMDK image descriptor: this is one extent of a split disk; open the descriptor";
  const std::string name = descriptor_name(file_->filename());
  if (!name.empty() && is_there(name))
    text += " ('" + name + "')";
  else
    text += ", the small .vmdk file that names it";
  invalid(text);
}

// A parent is named by a path, or, by VirtualBox, by its UUID alone.
Task<void> VmdkNode::open_parent(OpenContext& request) {
  std::string stored = descriptor_.parent_hint();
  const bool named = request.given_backing || request.options.has("backing") ||
                     request.options.has_tree("backing");
  const std::string uuid = database_value(descriptor_.text(), "ddb.uuid.parent");
  const bool needed = descriptor_.parent_cid() != kNoParent;
  if (context().beyond_qemu && !named && needed && !uuid.empty() && !metadata_only_ &&
      (stored.empty() || !is_there(resolve_backing_name(request.filename, stored)))) {
    const Uuid wanted = Uuid::parse(uuid);
    found_parent_ = co_await find_sibling_image(
        request.filename, request.flags.references, wanted,
        [wanted](ByteSpan start) { return is_image_with(start, wanted); });
    if (found_parent_.empty() && stored.empty() && !for_check_ && !request.flags.no_backing)
      refuse_lost_parent("VMDK", wanted);
    if (!found_parent_.empty()) stored = found_parent_;
  }
  NodePtr below = co_await request.open_backing(stored, "vmdk");
  const bool missing = stored.empty() && !below && needed;
  if (below) add_child("backing", std::move(below), ChildRole::kBacking);
  if (missing && !metadata_only_ && !request.flags.no_backing && !for_check_)
    invalid("The descriptor has a parentCID but does not name the parent: parent missing");
}

}  // namespace cairn
