#include "cli/key_budget.h"

#include "cli/size_text.h"

namespace cairn::cli {
namespace {
constexpr int kKeyBudgetId = 290;
}  // namespace

const Flag kKeyBudgetFlag{kKeyBudgetId, "key-budget", "memory=SIZE,time=SECONDS",
                          "what deriving the key of an encrypted image may cost (1G, 120)"};

void take_key_budget(const Arguments& arguments, Context& context) {
  const auto text = arguments.value(kKeyBudgetId);
  if (!text) return;
  Options options = Options::parse_list(*text);
  if (const auto size = options.string("memory")) options.set("memory", plain_size(*size));
  KeyBudget budget = context.key_budget;
  budget.memory_bytes = options.size("memory").value_or(budget.memory_bytes);
  budget.seconds = options.number("time").value_or(budget.seconds);
  for (const std::string& key : options.unused())
    throw Error(ErrorKind::kInvalid, "Invalid key budget '" + key + "': memory and time are known");
  context.key_budget = budget;
}

}  // namespace cairn::cli
