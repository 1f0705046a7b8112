#include "operation/spools.h"

#include <algorithm>

#include "platform/file.h"

namespace cairn::operation {

Spools::Spools(Context& context, const std::vector<std::string>& readable, unsigned more,
               std::optional<uint64_t> most) {
  Context::Unpacking& unpacking = context.unpacking;
  unpacking.spools_only = true;
  uint64_t usual = uint64_t{1} << 30;
  unsigned wanted = more;
  for (const std::string& path : readable) {
    const auto status = platform::status(path);
    if (!status || !status->is_regular()) continue;
    usual += 100 * std::min<uint64_t>(status->size, INT64_MAX / 1000);
    ++wanted;
  }
  while (files_.size() < wanted) {
    try {
      files_.push_back(std::make_unique<UnnamedFile>(context.temporary_directory, ""));
    } catch (const Error&) {
      break;
    }
    unpacking.spools.push_back(files_.back()->path());
  }
  unpacking.most_bytes = most.value_or(usual);
}

}  // namespace cairn::operation
