#include "block/node_base.h"

#include "block/driver.h"
#include "block/node.h"

namespace cairn {

NodeBase::NodeBase(Context& context, const Driver& driver)
    : context_(context), driver_(driver), unbounded_(driver.kind() == DriverKind::kProtocol) {}

Node* NodeBase::child(std::string_view name) const {
  for (const Child& child : children_)
    if (child.name == name) return child.node.get();
  return nullptr;
}

void NodeBase::add_child(std::string name, NodePtr node, ChildRole role) {
  if (role == ChildRole::kBacking)
    backing_ = node.get();
  else if (name == "file")
    debug_port_ = node->debug_port();
  // A filter has no room of its own: what is full is below it.
  const auto mark = [](const auto& self, NodeBase& store) -> void {
    store.stores_another_ = true;
    for (const Child& below : store.children_)
      if (below.role == ChildRole::kFiltered) self(self, *below.node);
  };
  if (role != ChildRole::kBacking && driver_.kind() == DriverKind::kFormat) mark(mark, *node);
  children_.push_back({std::move(name), std::move(node), role});
}

}  // namespace cairn
