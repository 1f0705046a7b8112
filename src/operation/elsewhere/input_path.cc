#include "operation/pipes.h"

namespace cairn::operation {

std::string path_of_input(const platform::FileStatus&) { return {}; }

}  // namespace cairn::operation
