#include "operation/data_budget.h"

#include <optional>

#include "base/arith.h"
#include "base/size.h"
#include "block/capabilities/storage_use.h"

namespace cairn::operation {
namespace {

// Much more than what a file stores, and than what is over in a moment.
constexpr uint64_t kTimesStored = 100;
constexpr uint64_t kAlwaysRead = uint64_t{1} << 30;

}  // namespace

Task<void> bound_data(Caller& caller, std::vector<NodePtr> nodes, std::string name,
                      DataBudget& budget, uint64_t times) {
  if (!caller.guarded) co_return;
  uint64_t stored = 0;
  for (const NodePtr& node : nodes) {
    const std::optional<uint64_t> one = co_await allocated_bytes_of(*node);
    if (!one || *one >= (UINT64_MAX - kAlwaysRead) / kTimesStored - stored) co_return;
    stored += *one;
  }
  const uint64_t once = caller.output_budget.value_or(kAlwaysRead + kTimesStored * stored);
  const uint64_t most = checked_mul(once, times).value_or(UINT64_MAX);
  budget.limit(most, [&caller, name, most, stored, several = nodes.size() > 1] {
    const std::string text =
        "'" + name + "'" + (several ? " and the other sources hold" : " holds") + " more than " +
        human_size(most) + " of data in " + (several ? "files" : "a file") + " of " +
        human_size(stored) + (several ? ": they map" : ": it maps") +
        " the same clusters again and again, or " + (several ? "are" : "is") + " compressed";
    if (!caller.untrusted) {
      caller.warn(text + "; the work may take very long, Ctrl-C ends it");
      return;
    }
    throw Error(ErrorKind::kTooLarge, text)
        .hint("If that is all right, a larger budget allows it.", "budget output=SIZE");
  });
}

}  // namespace cairn::operation
