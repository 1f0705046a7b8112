#include "operation/spools.h"

#include <sys/stat.h>

#include <algorithm>

namespace cairn::operation {

Spools::Spools(Context& context, const std::vector<std::string>& readable, unsigned more,
               std::optional<uint64_t> most) {
  Context::Unpacking& unpacking = context.unpacking;
  unpacking.spools_only = true;
  uint64_t usual = uint64_t{1} << 30;
  unsigned wanted = more;
  for (const std::string& path : readable) {
    struct stat status = {};
    if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) continue;
    usual += 100 * std::min<uint64_t>(static_cast<uint64_t>(status.st_size), INT64_MAX / 1000);
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
