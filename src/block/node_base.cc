#include "block/node_base.h"

#include <algorithm>

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

Node* NodeBase::layer_below() const {
  const NodeBase* at = this;
  while (at->backing_ == nullptr) {
    const auto through =
        std::find_if(at->children_.begin(), at->children_.end(),
                     [](const Child& child) { return child.role == ChildRole::kFiltered; });
    if (through == at->children_.end()) return nullptr;
    at = through->node.get();
  }
  return at->backing_;
}

void NodeBase::replace_child(std::string_view name, NodePtr node, ChildRole role) {
  const auto found = std::find_if(children_.begin(), children_.end(),
                                  [&](const Child& child) { return child.name == name; });
  if (found != children_.end()) {
    if (found->node.get() == filtered_) filtered_ = node.get();
    if (found->role == ChildRole::kBacking) backing_ = node.get();
    if (name == "file") debug_port_ = node == nullptr ? nullptr : node->debug_port();
    if (node == nullptr)
      children_.erase(found);
    else
      found->node = std::move(node);
  } else if (node != nullptr) {
    add_child(std::string(name), std::move(node), role);
  }
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
