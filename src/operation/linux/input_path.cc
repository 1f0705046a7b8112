#include "operation/pipes.h"
#include "platform/file.h"

namespace cairn::operation {

std::string path_of_input(const platform::FileStatus& status) {
  const bool file = status.is_regular() || status.type == platform::FileType::kBlockDevice;
  return file && ::lseek(STDIN_FILENO, 0, SEEK_CUR) == 0 ? "/proc/self/fd/0" : "";
}

}  // namespace cairn::operation
