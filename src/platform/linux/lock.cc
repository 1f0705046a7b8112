#include "platform/lock.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <memory>

#include "platform/file.h"
#include "platform/posix/byte_lock.h"

namespace cairn::platform {

int lock_byte(int fd, uint64_t byte, LockOwner owner) {
  struct flock request = lock_record(byte, F_RDLCK);
  return ::fcntl(fd, owner == LockOwner::kProcess ? F_SETLK : F_OFD_SETLK, &request);
}

int unlock_byte(int fd, uint64_t byte, LockOwner owner) {
  struct flock request = lock_record(byte, F_UNLCK);
  return ::fcntl(fd, owner == LockOwner::kProcess ? F_SETLK : F_OFD_SETLK, &request);
}

int byte_is_locked(int fd, uint64_t byte, LockOwner owner) {
  struct flock request = lock_record(byte, F_WRLCK);
  if (::fcntl(fd, owner == LockOwner::kProcess ? F_GETLK : F_OFD_GETLK, &request) != 0) return -1;
  return request.l_type == F_UNLCK ? 0 : 1;
}

int lock_file(int fd) { return ::flock(fd, LOCK_EX | LOCK_NB); }

// Open-file-description locks have no owner in /proc/locks: look who has the file open.
std::string other_user_of(int fd) {
  const auto own = status_of(fd);
  if (!own) return {};
  const std::unique_ptr<DIR, int (*)(DIR*)> processes(::opendir("/proc"), ::closedir);
  if (!processes) return {};
  const std::string self = std::to_string(::getpid());
  while (const dirent* process = ::readdir(processes.get())) {
    const std::string pid = process->d_name;
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string folder = "/proc/" + pid + "/fd";
    const std::unique_ptr<DIR, int (*)(DIR*)> files(::opendir(folder.c_str()), ::closedir);
    if (!files) continue;
    while (const dirent* entry = ::readdir(files.get())) {
      if (pid == self && entry->d_name == std::to_string(fd)) continue;
      const auto other = status(folder + "/" + entry->d_name);
      if (!other || !other->same_file(*own)) continue;
      if (pid == self) return std::string(kThisProcess);
      char name[64] = {};
      if (const int comm = platform::open("/proc/" + pid + "/comm", O_RDONLY); comm >= 0) {
        const ssize_t got = ::read(comm, name, sizeof name - 1);
        ::close(comm);
        if (got > 0 && name[got - 1] == '\n') name[got - 1] = 0;
      }
      return "process " + pid + (name[0] != 0 ? " (" + std::string(name) + ")" : std::string());
    }
  }
  return {};
}

}  // namespace cairn::platform
