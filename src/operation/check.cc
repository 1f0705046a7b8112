#include "operation/check.h"

#include "block/capabilities/checkable.h"
#include "block/driver.h"
#include "block/offered.h"

namespace cairn::operation {
namespace {

Task<CheckResult> check_once(Node& node, CheckRequest::Repair repair, const CheckOptions& options) {
  CheckRequest wanted;
  wanted.repair = repair;
  wanted.report = options.report;
  wanted.complain = options.complain;
  co_return co_await check_image(node, std::move(wanted));
}

}  // namespace

Task<CheckOutcome> check(const Caller& caller, OpenRequest request, CheckOptions options) {
  const CheckRequest::Repair repair = options.repair;
  request.flags.for_check = true;
  request.flags.writable = repair != CheckRequest::Repair::kNone;
  NodePtr node = co_await open_node(caller.context, std::move(request));
  CheckOutcome outcome;
  outcome.format = node->driver().name();
  std::exception_ptr error;
  const bool can_check = is_check_offered(*node);
  const bool can_repair = is_repair_offered(*node);
  if (!can_check || (repair != CheckRequest::Repair::kNone && !can_repair)) {
    outcome.unsupported = true;
  } else {
    try {
      outcome.result = co_await check_once(*node, repair, options);
      const CheckResult first = outcome.result;
      if (first.corruptions_fixed != 0 || first.leaks_fixed != 0) {
        options.repaired(first);
        outcome.result = co_await check_once(*node, CheckRequest::Repair::kNone, options);
        outcome.result.corruptions_fixed = first.corruptions_fixed;
        outcome.result.leaks_fixed = first.leaks_fixed;
      }
    } catch (const Error& met) {
      outcome.failure = met;
    } catch (...) {
      error = std::current_exception();
    }
  }
  std::vector<NodePtr> nodes(1, node);
  try {
    co_await close_all(std::move(nodes), error);
  } catch (const Error&) {
    if (!outcome.failure) throw;
  }
  co_return outcome;
}

}  // namespace cairn::operation
