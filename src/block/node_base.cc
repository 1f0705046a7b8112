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
  if (role != ChildRole::kBacking) node->stores_another_ = true;
  children_.push_back({std::move(name), std::move(node), role});
}

}  // namespace cairn
