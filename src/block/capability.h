#pragma once

#include <string_view>
#include <vector>

namespace cairn {

// What a node can do beyond being a block device is an interface in block/capabilities/, which a
// node has or has not: Node::as() asks for it. An interface has a tag of its own, `kCapability`;
// its address identifies the interface.
struct CapabilityTag {
  std::string_view name;  // unique, for tests and messages to developers
};
using CapabilityId = const CapabilityTag*;
using CapabilityIds = std::vector<CapabilityId>;

// The interfaces of a node's class, from which both the answer of its find_capability() and the
// list in its driver's traits are made.
template <class... Interfaces>
struct CapabilityList {
  // NODE as the interface that ID identifies; null where it is not in the list.
  template <class NodeClass>
  static void* find(NodeClass* node, CapabilityId id) {
    void* found = nullptr;
    static_cast<void>((
        (id == &Interfaces::kCapability && (found = static_cast<Interfaces*>(node), true)) || ...));
    return found;
  }
  static CapabilityIds ids() { return {&Interfaces::kCapability...}; }
};

}  // namespace cairn
