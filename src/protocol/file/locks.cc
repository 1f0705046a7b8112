#include "protocol/file/locks.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <memory>
#include <thread>

#include "base/error.h"

namespace cairn {
namespace {

constexpr int kUsedBase = 100;
constexpr int kUnsharedBase = 200;
constexpr std::string_view kSelf = "this process";
constexpr std::chrono::milliseconds kPatience{200};
constexpr std::chrono::milliseconds kPause{10};
constexpr const char* kNames[] = {"consistent read", "write", "write unchanged", "resize"};

struct flock record(int byte, short type) {
  struct flock lock = {};
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  lock.l_type = type;
  return lock;
}

bool refused(int error) { return error == EAGAIN || error == EACCES; }

// The kernel or the file system does not know the request.
bool unknown(int error) { return error == EINVAL || error == ENOSYS || error == EOPNOTSUPP; }

}  // namespace

void ImageLocks::set(int byte, bool lock) {
  if (mode_ == Locking::kOff) return;
  struct flock request = record(byte, lock ? F_RDLCK : F_UNLCK);
  if (::fcntl(fd_, of_process_ ? F_SETLK : F_OFD_SETLK, &request) == 0 || !lock) return;
  if (unknown(errno) && !of_process_) {
    fall_back();
    return set(byte, lock);
  }
  const std::string text = fmt::format("Failed to lock byte {}", byte);
  if (refused(errno)) throw Error(ErrorKind::kLocked, text);
  throw Error::system(errno, text)
      .hint("Where the file system has no locks: file.locking=off", "image-opts");
}

void ImageLocks::fall_back() {
  if (mode_ == Locking::kAuto) {
    mode_ = Locking::kOff;
    return;
  }
  of_process_ = true;
  if (warn_)
    warn_(
        "File lock requested but OFD locking syscall is unavailable, falling back to POSIX file "
        "locks\nDue to the implementation, locks can be lost unexpectedly.");
}

void ImageLocks::test(int byte, const std::string& message) const {
  if (mode_ == Locking::kOff) return;
  struct flock request = record(byte, F_WRLCK);
  if (::fcntl(fd_, of_process_ ? F_GETLK : F_OFD_GETLK, &request) != 0)
    throw Error::system(errno, message);
  if (request.l_type == F_UNLCK) return;
  Error error(ErrorKind::kLocked, message);
  error.hint("Is another process using the image [" + filename_ + "]?");
  if (const std::string who = holder(); !who.empty() && who != kSelf)
    error.hint("It is open in " + who + ".");
  throw error;
}

void ImageLocks::change(Permissions wanted) {
  if (mode_ == Locking::kOff) return;
  for (auto patience = kPatience;; patience -= kPause) {
    try {
      return take(wanted);
    } catch (const Error& error) {
      // The kernel may keep the files of a killed process for a moment: its requests come first.
      // No process has them open then. What waits holds nothing, so that two do not wait for each
      // other.
      if (error.kind() != ErrorKind::kLocked || patience <= patience.zero() || !holder().empty())
        throw;
    }
    std::this_thread::sleep_for(kPause);
  }
}

void ImageLocks::take(Permissions wanted) {
  const Permissions before = held_;
  try {
    for (int bit = 0; bit < 4; ++bit)
      if ((wanted.used & ~before.used) >> bit & 1) set(kUsedBase + bit, true);
    for (int bit = 0; bit < 4; ++bit)
      if ((wanted.unshared & ~before.unshared) >> bit & 1) set(kUnsharedBase + bit, true);
    for (int bit = 0; bit < 4; ++bit)
      if (wanted.used >> bit & 1)
        test(kUnsharedBase + bit, "Failed to get \"" + std::string(kNames[bit]) + "\" lock");
    for (int bit = 0; bit < 4; ++bit)
      if (wanted.unshared >> bit & 1)
        test(kUsedBase + bit, "Failed to get shared \"" + std::string(kNames[bit]) + "\" lock");
  } catch (const Error&) {
    for (int bit = 0; bit < 4; ++bit) {
      if ((wanted.used & ~before.used) >> bit & 1) set(kUsedBase + bit, false);
      if ((wanted.unshared & ~before.unshared) >> bit & 1) set(kUnsharedBase + bit, false);
    }
    throw;
  }
  for (int bit = 0; bit < 4; ++bit)
    if ((before.used & ~wanted.used) >> bit & 1) set(kUsedBase + bit, false);
  for (int bit = 0; bit < 4; ++bit)
    if ((before.unshared & ~wanted.unshared) >> bit & 1) set(kUnsharedBase + bit, false);
  held_ = wanted;
}

ResizeLock::ResizeLock(ImageLocks* locks) {
  if (locks == nullptr) return;
  const Permissions held = locks->held();
  const bool writer = (held.used & Permissions::kWrite) != 0;
  if (!writer || (held.used & Permissions::kResize) != 0) return;
  locks->change({static_cast<uint8_t>(held.used | Permissions::kResize), held.unshared});
  locks_ = locks;
  before_ = held;
}

ResizeLock::~ResizeLock() {
  // Giving up does not fail.
  if (locks_ != nullptr) locks_->change(before_);
}

// Open-file-description locks have no owner in /proc/locks: look who has the file open.
std::string ImageLocks::holder() const {
  struct stat own = {};
  if (::fstat(fd_, &own) != 0) return {};
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
      if (pid == self && entry->d_name == std::to_string(fd_)) continue;
      struct stat other = {};
      if (::stat((folder + "/" + entry->d_name).c_str(), &other) != 0 ||
          other.st_dev != own.st_dev || other.st_ino != own.st_ino)
        continue;
      if (pid == self) return std::string(kSelf);
      char name[64] = {};
      if (const int fd = ::open(("/proc/" + pid + "/comm").c_str(), O_RDONLY | O_CLOEXEC);
          fd >= 0) {
        const ssize_t got = ::read(fd, name, sizeof name - 1);
        ::close(fd);
        if (got > 0 && name[got - 1] == '\n') name[got - 1] = 0;
      }
      return "process " + pid + (name[0] != 0 ? " (" + std::string(name) + ")" : std::string());
    }
  }
  return {};
}

}  // namespace cairn
