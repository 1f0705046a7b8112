#include "block/context.h"
#include "block/sibling_image.h"
#include "format/vdi/node.h"

namespace cairn {

using namespace vdi;

namespace {

// What OPTIONS say about the child "backing", null included.
bool parent_is_named(const OpenContext& request) {
  return request.given_backing || request.options.has("backing") ||
         request.options.has_tree("backing");
}

}  // namespace

// VirtualBox keeps paths of images in its registry; a snapshot knows its parent's UUID only.
Task<void> VdiNode::open_parent(OpenContext& request) {
  if (!header_.has_parent()) co_return;
  const Uuid wanted = header_.parent;
  const bool named = parent_is_named(request);
  const bool only_named = request.flags.metadata_only;
  if (!named && (!only_named || request.flags.find_parent)) {
    ReferencePolicy policy;
    if (!only_named) policy = request.flags.references;
    std::string found =
        co_await find_sibling_image(request.filename, policy, wanted, [wanted](ByteSpan start) {
          return start.size() >= kHeaderBytes && load_le<uint32_t>(start, 64) == kMagic &&
                 Uuid::load_guid(start, 392) == wanted;
        });
    if (found.empty() && !request.flags.for_check &&
        (request.flags.find_parent || !request.flags.no_backing))
      refuse_lost_parent("VDI", wanted);
    parent_ = found;
  }
  NodePtr parent = co_await request.open_backing(parent_, parent_.empty() ? "" : "vdi");
  if (!parent) co_return;
  const auto* below = dynamic_cast<const VdiNode*>(parent.get());
  const std::string name = parent->filename();
  if (named) parent_ = name;
  add_child("backing", std::move(parent), ChildRole::kBacking);
  if (below == nullptr) co_return;
  if (below->header_.created != wanted)
    throw Error(ErrorKind::kInvalid,
                "VDI: '" + name + "' is another disk than the parent: its UUID is {" +
                    below->header_.created.text() + "}, not {" + wanted.text() + "}");
  if (!header_.parent_modified.is_null() && below->header_.modified != header_.parent_modified)
    throw Error(ErrorKind::kInvalid,
                "VDI: the parent '" + name +
                    "' was modified after this snapshot was made: its modification UUID is {" +
                    below->header_.modified.text() + "}, not {" + header_.parent_modified.text() +
                    "}");
}

Value VdiNode::specific_info() const {
  if (!header_.has_parent()) return {};
  Value info = Value::object();
  info.set("subformat", header_.type == kDifferencing ? "differencing" : "undo");
  info.set("uuid", header_.created.text());
  info.set("parent-uuid", header_.parent.text());
  info.set("parent-modification-uuid", header_.parent_modified.text());
  return info;
}

}  // namespace cairn
