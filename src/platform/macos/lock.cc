#include "platform/lock.h"

#include <fcntl.h>
#include <libproc.h>
#include <sys/file.h>
#include <sys/param.h>
#include <unistd.h>

#include <cerrno>

#include "platform/posix/byte_lock.h"

namespace cairn::platform {
namespace {

// Programs have no locks of open files here: those of the process are what is left.
int request(int fd, int command, struct flock& lock, LockOwner owner) {
  if (owner == LockOwner::kOpenFile) {
    errno = EOPNOTSUPP;
    return -1;
  }
  return ::fcntl(fd, command, &lock);
}

}  // namespace

int lock_byte(int fd, uint64_t byte, LockOwner owner) {
  struct flock lock = lock_record(byte, F_RDLCK);
  return request(fd, F_SETLK, lock, owner);
}

int unlock_byte(int fd, uint64_t byte, LockOwner owner) {
  struct flock lock = lock_record(byte, F_UNLCK);
  return request(fd, F_SETLK, lock, owner);
}

int byte_is_locked(int fd, uint64_t byte, LockOwner owner) {
  struct flock lock = lock_record(byte, F_WRLCK);
  if (request(fd, F_GETLK, lock, owner) != 0) return -1;
  return lock.l_type == F_UNLCK ? 0 : 1;
}

int lock_file(int fd) { return ::flock(fd, LOCK_EX | LOCK_NB); }

std::string other_user_of(int fd) {
  char path[MAXPATHLEN] = "";
  if (::fcntl(fd, F_GETPATH, path) != 0) return {};
  pid_t users[64] = {};
  const int bytes = ::proc_listpidspath(PROC_ALL_PIDS, 0, path, 0, users, sizeof users);
  const int own = ::getpid();
  for (size_t at = 0; bytes > 0 && at < static_cast<size_t>(bytes) / sizeof *users; ++at) {
    // Whether this process has it open twice is not known.
    if (users[at] == 0 || users[at] == own) continue;
    char name[64] = "";
    ::proc_name(users[at], name, sizeof name);
    const std::string who = "process " + std::to_string(users[at]);
    return name[0] == 0 ? who : who + " (" + name + ")";
  }
  return {};
}

}  // namespace cairn::platform
