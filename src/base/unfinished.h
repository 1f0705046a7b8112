#pragma once

#include <string>

namespace cairn {

// A file or disk that is being made or changed, as long as this object is there: what a program
// that ends before the work does has to clear away or to name. Objects may be made on any thread.
class Unfinished {
 public:
  enum class Fate {
    kRemoved,     // a new file that is worth nothing yet
    kIncomplete,  // one that stays, changed in part
    kGoesOn,      // the same, where the same command continues the work
    kUnflushed,   // a disk, perhaps of a server: what was written to it may be lost
    kElsewhere,   // no file: what a server has for the work, until the same command removes it
  };
  // The name is kept as it is; one of 4096 bytes and more is not.
  Unfinished(const std::string& path, Fate fate);
  ~Unfinished();
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;
  // The work has ended; the same as destruction.
  void done();

  // Removes the new files, and writes what became of all to DESCRIPTOR, a line each. For signal
  // handlers: calls only what may be called there. Nothing else may be done afterwards but to end.
  static void abandon_all(int descriptor) noexcept;

 private:
  int slot_ = -1;
};

}  // namespace cairn
