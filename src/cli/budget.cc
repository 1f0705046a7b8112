#include <algorithm>

#include "base/size.h"
#include "cli/sandbox.h"
#include "cli/size_text.h"

namespace cairn::cli {

Budget Budget::parse(const std::string& text) {
  Budget budget;
  Options options = Options::parse_list(text);
  for (const char* key : {"memory", "output"})
    if (const auto size = options.string(key)) options.set(key, plain_size(*size));
  budget.memory = options.size("memory").value_or(budget.memory);
  budget.cpu_seconds = options.number("cpu").value_or(budget.cpu_seconds);
  budget.output = options.size("output");
  for (const std::string& key : options.unused())
    throw Error(ErrorKind::kInvalid,
                "Invalid budget '" + key + "': memory, cpu and output are known");
  constexpr uint64_t kLeastMemory = 64 << 20;
  if (budget.memory < kLeastMemory)
    throw Error(ErrorKind::kInvalid, "A budget of memory is at least 64M");
  if (budget.cpu_seconds == 0 || budget.cpu_seconds > UINT32_MAX)
    throw Error(ErrorKind::kInvalid, "A budget of processor time is at least one second");
  return budget;
}

bool can_be_sandboxed(std::string_view verb) {
  constexpr std::string_view kVerbs[] = {"info",    "check",   "map", "convert",
                                         "compare", "measure", "hash"};
  return std::find(std::begin(kVerbs), std::end(kVerbs), verb) != std::end(kVerbs);
}

}  // namespace cairn::cli
