
#include "block/context.h"
#include "block/extent_name.h"
#include "block/sibling_image.h"
#include "format/vmdk/node.h"
#include "platform/file.h"

namespace cairn {

using namespace vmdk;

namespace {

bool is_there(const std::string& path) { return platform::exists(path); }

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

}  // namespace

void VmdkNode::refuse_extent() const {
  invalid("invalid VMDK image descriptor: this is one extent of a split disk; " +
          extent_advice(file_->filename()));
}

// A parent is named by a path, or, by VirtualBox, by its UUID alone.
Task<void> VmdkNode::open_parent(OpenContext& request) {
  std::string stored = descriptor_.parent_hint();
  const bool named = request.given_backing || request.options.has("backing") ||
                     request.options.has_tree("backing");
  const std::string uuid = database_value(descriptor_.text(), "ddb.uuid.parent");
  const bool needed = descriptor_.parent_cid() != kNoParent;
  if (context().profile.extensions && !named && needed && !uuid.empty() &&
      (!metadata_only_ || request.flags.find_parent) &&
      (stored.empty() || !is_there(resolve_backing_name(request.filename, stored)))) {
    const Uuid wanted = Uuid::parse(uuid);
    ReferencePolicy policy;
    if (!metadata_only_) policy = request.flags.references;
    found_parent_ = co_await find_sibling_image(
        request.filename, policy, wanted,
        [wanted](ByteSpan start) { return is_image_with(start, wanted); });
    if (found_parent_.empty() && stored.empty() && !for_check_ &&
        (request.flags.find_parent || !request.flags.no_backing))
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
