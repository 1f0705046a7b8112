#include "async/engine.h"

namespace cairn {

std::unique_ptr<IoEngine> make_uring_engine(int) { return nullptr; }

}  // namespace cairn
