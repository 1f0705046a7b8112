#include <fcntl.h>
#include <sys/file.h>

#include "platform/lock.h"

namespace cairn::platform {

int lock_for_process(int fd) {
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  return ::fcntl(fd, F_SETLK, &whole);
}

int lock_file_shared(int fd) { return ::flock(fd, LOCK_SH); }

}  // namespace cairn::platform
