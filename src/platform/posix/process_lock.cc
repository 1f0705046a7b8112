#include <fcntl.h>

#include "platform/lock.h"

namespace cairn::platform {

int lock_for_process(int fd) {
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  return ::fcntl(fd, F_SETLK, &whole);
}

}  // namespace cairn::platform
