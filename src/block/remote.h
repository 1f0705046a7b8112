#pragma once

#include <algorithm>

#include "block/node.h"

namespace cairn {

// Whether requests to NODE, or to what is below it, travel.
inline bool is_remote(const Node& node) {
  if (node.limits().remote) return true;
  return std::any_of(node.children().begin(), node.children().end(),
                     [](const Child& child) { return is_remote(*child.node); });
}

// Whether answers of NODE, or of what is below it, take long to come.
inline bool is_distant(const Node& node) {
  if (node.limits().distant) return true;
  return std::any_of(node.children().begin(), node.children().end(),
                     [](const Child& child) { return is_distant(*child.node); });
}

}  // namespace cairn
