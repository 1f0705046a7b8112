#include "platform/lock.h"

namespace cairn::platform {

int lock_for_process(int fd) { return lock_file(fd); }

}  // namespace cairn::platform
