#include "job/replacement.h"

#include <fmt/core.h>

#include <cerrno>

#include "base/error.h"
#include "base/size.h"

namespace cairn {

// What holds on every system; the rest of the class is below linux/ and elsewhere/.

std::string FileReplacement::check_replaceable(const std::string& path, platform::FileStatus* old) {
  std::string whole = platform::canonical(path);
  const auto found = whole.empty() ? std::nullopt : platform::status(whole);
  if (!found) throw Error::system(errno, "Could not open '" + path + "'");
  if (!found->is_regular())
    throw Error(ErrorKind::kInvalid, "'" + path + "' is not a regular file")
        .hint("Name a new file to write to.");
  if (found->links > 1)
    throw Error(
        ErrorKind::kInvalid,
        fmt::format("'{}' has {} names (hard links), which would come apart", path, found->links))
        .hint("Name a new file to write to.");
  *old = *found;
  return whole;
}

void FileReplacement::need_space(uint64_t bytes) const {
  const auto left = platform::bytes_for_user(folder_);
  if (!left) throw Error::system(errno, folder_);
  if (*left >= bytes) return;
  throw Error(ErrorKind::kNoSpace, "'" + folder_ + "' has " + human_size(*left) +
                                       " left, and up to " + human_size(bytes) +
                                       " are needed while both files are there")
      .hint("Free some space, or name a new file elsewhere.");
}

}  // namespace cairn
