#pragma once

#include <string>
#include <utility>
#include <vector>

#include "job/data_budget.h"
#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

// Bounds BUDGET by what NODES take on their hosts, all together: untrusted images that give out
// much more are refused when they do, others lead to a warning. Only for a guarded CALLER, and
// where it is known what all of them take. NAME is what people call the first one. TIMES as much
// may be read where something else bounds what is done with it. CALLER must outlive the budget.
Task<void> bound_data(Caller& caller, std::vector<NodePtr> nodes, std::string name,
                      DataBudget& budget, uint64_t times = 1);
inline Task<void> bound_data(Caller& caller, NodePtr node, std::string name, DataBudget& budget) {
  return bound_data(caller, std::vector<NodePtr>(1, std::move(node)), std::move(name), budget);
}

}  // namespace cairn::operation
