#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "block/permissions.h"
#include "platform/lock.h"

namespace cairn {

// Where the kernel or the file system has no locks of open files, kAuto takes none and kOn takes
// those of the process instead.
enum class Locking { kAuto, kOn, kOff };

// The image locks of one open file: shared one-byte record locks at 100 + permission for what is
// used and at 200 + permission for what is not shared, exactly as QEMU takes them; a conflict is
// found by testing whether an exclusive lock would be possible. Locks of the process, which kOn may
// lead to, are lost when the process closes any descriptor of the file, and do not keep out its
// other users in the same process.
class ImageLocks {
 public:
  // WARN hears of it when locks of the process are taken.
  ImageLocks(int fd, std::string filename, Locking mode,
             std::function<void(std::string_view)> warn = {})
      : fd_(fd), filename_(std::move(filename)), mode_(mode), warn_(std::move(warn)) {}

  // Makes WANTED the locks that are held. What is new is taken and tested before anything is given
  // up; on a conflict the locks are as before, and kLocked is thrown with the words of QEMU, and
  // the holder's name where /proc has it. Where no process has the file open, blocks for up to 200
  // ms until the kernel has let go of it.
  void change(Permissions wanted);
  const Permissions& held() const { return held_; }

 private:
  void take(Permissions wanted);
  void set(int byte, bool lock);
  // What is done instead of locks that this file does not have.
  void fall_back();
  void test(int byte, const std::string& message) const;
  // The other process that has the file open, as far as the system shows; empty: none.
  std::string holder() const;
  int fd_;
  std::string filename_;
  Locking mode_;
  std::function<void(std::string_view)> warn_;
  platform::LockOwner owner_ = platform::LockOwner::kOpenFile;
  Permissions held_;
};

// While it lives, the file may change its length: adds that to the locks of a writer, if they lack
// it. LOCKS may be null. Throws, and may block, as ImageLocks::change.
class ResizeLock {
 public:
  explicit ResizeLock(ImageLocks* locks);
  ~ResizeLock();
  ResizeLock(const ResizeLock&) = delete;
  ResizeLock& operator=(const ResizeLock&) = delete;

 private:
  ImageLocks* locks_ = nullptr;  // null: nothing was added
  Permissions before_;
};

}  // namespace cairn
