#pragma once

#include <string>

#include "cli/session.h"
#include "job/data_budget.h"

namespace cairn::cli {

// Bounds BUDGET by what NODE takes on its host: an untrusted image that gives out much more is
// refused when it does, others lead to a warning. Not under QEMU's names. NAME is what people call
// the image. TIMES as much may be read where something else bounds what is done with it. SESSION
// must outlive the budget.
Task<void> bound_data(Session& session, NodePtr node, std::string name, DataBudget& budget,
                      uint64_t times = 1);

}  // namespace cairn::cli
