#pragma once

#include <string>

#include "job/data_budget.h"
#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

// Bounds BUDGET by what NODE takes on its host: an untrusted image that gives out much more is
// refused when it does, others lead to a warning. Only for a guarded CALLER. NAME is what people
// call the image. TIMES as much may be read where something else bounds what is done with it.
// CALLER must outlive the budget.
Task<void> bound_data(Caller& caller, NodePtr node, std::string name, DataBudget& budget,
                      uint64_t times = 1);

}  // namespace cairn::operation
