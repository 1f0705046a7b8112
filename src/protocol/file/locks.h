#pragma once

#include <string>

#include "block/permissions.h"

namespace cairn {

enum class Locking { kAuto, kOn, kOff };

// The image locks of one open file: shared one-byte record locks at 100 + permission for what is
// used and at 200 + permission for what is not shared, exactly as QEMU takes them; a conflict is
// found by testing whether an exclusive lock would be possible.
class ImageLocks {
 public:
  ImageLocks(int fd, std::string filename, Locking mode)
      : fd_(fd), filename_(std::move(filename)), mode_(mode) {}

  // Makes WANTED the locks that are held. What is new is taken and tested before anything is given
  // up; on a conflict the locks are as before, and kLocked is thrown with the words of QEMU, and
  // the holder's name where /proc has it. Where no process has the file open, blocks for up to 200
  // ms until the kernel has let go of it.
  void change(Permissions wanted);
  const Permissions& held() const { return held_; }

 private:
  void take(Permissions wanted);
  void set(int byte, bool lock) const;
  void test(int byte, const std::string& message) const;
  // The other process that has the file open, as far as /proc shows; empty: none.
  std::string holder() const;
  int fd_;
  std::string filename_;
  Locking mode_;
  Permissions held_;
};

}  // namespace cairn
