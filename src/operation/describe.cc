#include "operation/describe.h"

#include <set>

#include "async/finally.h"
#include "base/arith.h"
#include "block/capabilities/backing_link.h"
#include "block/capabilities/image_info.h"
#include "block/capabilities/snapshot_store.h"
#include "block/capabilities/storage_use.h"
#include "block/driver.h"

namespace cairn::operation {
namespace {

// More images on top of each other than anybody needs.
constexpr size_t kDeepestChain = 200;

// The name by which CHILD of NODE is given in options: these filters have no "file".
std::string option_of(const Node& node, const std::string& child) {
  const std::string_view driver = node.driver().name();
  if (child == "file" && driver == "blkdebug") return "image";
  if (child == "file" && driver == "blkverify") return "test";
  return child;
}

// Of a protocol only where it says more of itself than its bytes; raw has those of its file.
uint64_t shown_cluster_bytes(const Node& node) {
  const DriverKind kind = node.driver().kind();
  const uint64_t bytes = node.limits().cluster_bytes;
  if (bytes == 0 && kind == DriverKind::kFormat && node.filtered() != nullptr)
    return shown_cluster_bytes(*node.filtered());
  const bool shown =
      kind == DriverKind::kProtocol ? node.as<ImageInfo>() != nullptr : reports_cluster_bytes(node);
  return shown ? bytes : 0;
}

}  // namespace

Task<Value> describe(Node& node) {
  Value result = Value::object();
  Value children = Value::array();
  const auto& all = node.children();
  for (auto child = all.rbegin(); child != all.rend(); ++child) {
    if (child->role == ChildRole::kBacking) continue;
    Value one = Value::object();
    one.set("name", option_of(node, child->name));
    Value below = co_await describe(*child->node);
    one.set("info", std::move(below));
    children.push_back(std::move(one));
  }
  const std::string backing_format = backing_format_of(node);
  if (!backing_format.empty()) result.set("backing-filename-format", backing_format);
  result.set("children", std::move(children));
  co_await learn_snapshots(node);
  Value snapshots = snapshots_info_of(node);
  if (const auto* list = snapshots.get_if<Value::Array>(); list != nullptr && !list->empty())
    result.set("snapshots", std::move(snapshots));
  result.set("virtual-size", align_up(node.length(), 512));
  result.set("filename", node.filename());
  if (const uint64_t cluster = shown_cluster_bytes(node); cluster != 0)
    result.set("cluster-size", cluster);
  result.set("format", node.driver().name());
  const auto allocated = co_await allocated_bytes_of(node);
  if (allocated) result.set("actual-size", *allocated);
  Value specific = specific_info_of(node);
  if (!specific.is_null()) {
    Value wrapped = Value::object();
    wrapped.set("type", specific_type_of(node));
    wrapped.set("data", std::move(specific));
    result.set("format-specific", std::move(wrapped));
  }
  const std::string backing = backing_name_of(node);
  if (!backing.empty()) {
    try {
      result.set("full-backing-filename", resolve_backing_name(node, backing));
    } catch (const Error&) {
      // Without a plain name of the image there is no full name; the stored one is shown.
    }
    result.set("backing-filename", backing);
  }
  if (is_encrypted(node)) result.set("encrypted", true);
  if (const auto dirty = dirty_flag_of(node)) result.set("dirty-flag", *dirty);
  co_return result;
}

namespace {

Task<Value> look(Context& context, OpenRequest request) {
  NodePtr node = co_await open_node(context, std::move(request));
  Value info;
  co_await finally([&]() -> Task<void> { info = co_await describe(*node); },
                   [&] { return close_all({node}); });
  co_return info;
}

}  // namespace

std::vector<Value> describe_images(const Caller& caller, OpenRequest request, bool chain,
                                   bool force_share) {
  std::vector<Value> infos;
  std::set<std::string> seen;
  while (true) {
    request.flags.metadata_only = true;
    request.flags.no_backing = true;
    // One file is looked at: what it names is shown, not opened.
    if (caller.guarded) request.flags.references.mode = ReferencePolicy::Mode::kDeny;
    request.flags.find_parent = chain && caller.guarded && !caller.untrusted;
    const std::string name = request.filename;
    if (!name.empty() && !seen.insert(name).second)
      invalid("Backing file '" + name + "' creates an infinite loop.");
    if (infos.size() > kDeepestChain) invalid("The chain of images is deeper than 200 layers");
    infos.push_back(caller.run(look(caller.context, std::move(request))));
    const Value& info = infos.back();
    if (!chain || info.find("backing-filename") == nullptr) return infos;
    if (info.find("full-backing-filename") == nullptr)
      invalid("Could not determine absolute backing filename, but backing filename '" +
              text_of(info, "backing-filename") + "' present");
    request = OpenRequest{};
    request.filename = text_of(info, "full-backing-filename");
    request.format = text_of(info, "backing-filename-format");
    request.flags.force_share = force_share;
    if (caller.untrusted) {
      request.flags.references.mode = ReferencePolicy::Mode::kDeny;
      request.flags.references.check(request.filename);
    }
  }
}

std::string text_of(const Value& object, std::string_view key) {
  const Value* member = object.find(key);
  return member == nullptr ? std::string() : member->scalar_text();
}

uint64_t number_of(const Value& object, std::string_view key) {
  const Value* member = object.find(key);
  if (member == nullptr) return 0;
  if (const auto* number = member->get_if<uint64_t>()) return *number;
  if (const auto* number = member->get_if<int64_t>()) return static_cast<uint64_t>(*number);
  return 0;
}
}  // namespace cairn::operation
