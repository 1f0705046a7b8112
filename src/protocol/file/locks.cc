#include "protocol/file/locks.h"

#include <fmt/core.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "base/error.h"
#include "platform/lock.h"

namespace cairn {
namespace {

constexpr int kUsedBase = 100;
constexpr int kUnsharedBase = 200;
constexpr std::chrono::milliseconds kPatience{200};
constexpr std::chrono::milliseconds kPause{10};
constexpr const char* kNames[] = {"consistent read", "write", "write unchanged", "resize"};

bool refused(int error) { return error == EAGAIN || error == EACCES; }

// The kernel or the file system does not know the request.
bool unknown(int error) { return error == EINVAL || error == ENOSYS || error == EOPNOTSUPP; }

}  // namespace

void ImageLocks::set(int byte, bool lock) {
  if (mode_ == Locking::kOff) return;
  const auto at = static_cast<uint64_t>(byte);
  if (!lock) {
    platform::unlock_byte(fd_, at, owner_);
    return;
  }
  if (platform::lock_byte(fd_, at, owner_) == 0) return;
  if (unknown(errno) && owner_ == platform::LockOwner::kOpenFile) {
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
  owner_ = platform::LockOwner::kProcess;
  if (warn_)
    warn_(
        "File lock requested but OFD locking syscall is unavailable, falling back to POSIX file "
        "locks\nDue to the implementation, locks can be lost unexpectedly.");
}

void ImageLocks::test(int byte, const std::string& message) const {
  if (mode_ == Locking::kOff) return;
  const int locked = platform::byte_is_locked(fd_, static_cast<uint64_t>(byte), owner_);
  if (locked < 0) throw Error::system(errno, message);
  if (locked == 0) return;
  Error error(ErrorKind::kLocked, message);
  error.hint("Is another process using the image [" + filename_ + "]?");
  if (const std::string who = holder(); !who.empty() && who != platform::kThisProcess)
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

std::string ImageLocks::holder() const { return platform::other_user_of(fd_); }

}  // namespace cairn
