#include "operation/compare.h"

#include "async/finally.h"
#include "operation/data_budget.h"
#include "operation/pipes.h"

namespace cairn::operation {

Task<CompareResult> compare(Caller& caller, OpenRequest first, OpenRequest second,
                            CompareOptions options, bool quiet) {
  const std::string names[] = {shown_name(first), shown_name(second)};
  NodePtr a = co_await open_source(caller, std::move(first), quiet);
  NodePtr b;
  CompareResult result;
  co_await finally(
      [&]() -> Task<void> {
        b = co_await open_source(caller, std::move(second), quiet);
        Compare job(caller.context, a, b, options, caller.cancel);
        job.progress = [&](uint64_t done, uint64_t total) { caller.progress(done, total); };
        co_await bound_data(caller, a, names[0], job.budgets[0]);
        co_await bound_data(caller, b, names[1], job.budgets[1]);
        result = co_await job.run();
      },
      [&] {
        return close_all({a, b});
      });
  co_return result;
}

}  // namespace cairn::operation
