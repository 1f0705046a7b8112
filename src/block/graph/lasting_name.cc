#include "block/graph/lasting_name.h"

#include "base/value.h"
#include "block/capabilities/backing_link.h"
#include "block/capabilities/parent_link.h"
#include "block/context.h"
#include "block/driver.h"
#include "block/node.h"
#include "block/open.h"

namespace cairn {
namespace {

constexpr std::string_view kJson = "json:";

// The options that open what NODE is, by its LASTING name.
Value tree_of(Node& node, const std::string& name) {
  if (name.starts_with(kJson)) return Value::parse(std::string_view(name).substr(kJson.size()));
  Value tree = Value::object();
  tree.set("driver", node.driver().name());
  if (node.driver().kind() == DriverKind::kProtocol || node.file() == nullptr)
    tree.set("filename", name);
  else
    tree.set("file", tree_of(*node.file(), lasting_name(*node.file())));
  return tree;
}

// Whether the image of NODE names the backing file that it has, which is called BELOW.
bool has_what_it_names(Node& node, const BackingName& stored, const std::string& below) {
  const std::string name = stored.backing_name();
  if (name.empty() || node.backing() == nullptr) return name.empty() && node.backing() == nullptr;
  if (name == below) return true;
  // Without a plain name of its own nothing can be relative to it.
  try {
    return resolve_backing_name(node, name) == below;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

std::string lasting_name(Node& node) {
  const auto* stored = node.as<BackingName>();
  // Parents of differencing disks are found in other ways than by a name.
  const bool by_name = node.as<BackingLink>() != nullptr && node.as<ParentLink>() == nullptr;
  if (stored == nullptr || !by_name) return node.filename();
  const std::string below = node.backing() == nullptr ? "" : lasting_name(*node.backing());
  if (has_what_it_names(node, *stored, below)) return node.filename();
  Value tree = tree_of(node, node.filename());
  tree.set("backing", node.backing() == nullptr ? Value() : tree_of(*node.backing(), below));
  return std::string(kJson) + tree.compact(node.context().profile.json_order);
}

}  // namespace cairn
