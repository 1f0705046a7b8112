#pragma once

#include <optional>
#include <string>

#include "base/error.h"
#include "base/own_fd.h"

namespace cairn::operation {

// What messages say of a DurableFile.
struct DurableFileWords {
  const char* noun = "journal";
  // After "… is in use".
  const char* in_use = "Another program is at this copy.";
  // Where the file cannot be made, and which option names another one.
  const char* elsewhere = "Name a file elsewhere.";
  const char* option = "resume=FILE";
};

// A file for its owner alone, locked against other programs of ours, which remembers: what a method
// has written is on stable storage when it returns, and a crash leaves the old content or the new.
// All methods block, and throw an Error that names the file; one caller at a time.
class DurableFile {
 public:
  explicit DurableFile(std::string path, DurableFileWords words = {})
      : path_(std::move(path)), words_(words) {}

  const std::string& path() const { return path_; }
  bool is_open() const { return static_cast<bool>(file_); }
  // Opens and locks the file. Its content, cut off after MOST bytes and one; nothing where there is
  // no such file. Throws kLocked where it is in use.
  std::optional<std::string> read(size_t most);
  // Replaces the content; makes the file where there is none.
  void replace(const std::string& text);
  // Adds to what was written. After a failure only replace(), clear() and remove() may follow.
  void append(const std::string& text);
  // Nothing is in it any more: needs no space.
  void clear();
  void remove();
  // Closes it; others may have it.
  void release() { file_ = OwnFd(); }

 private:
  void lock(int fd) const;
  [[noreturn]] void in_use() const;
  void store(int fd, const std::string& text) const;
  void sync_directory() const;
  Error about(const char* doing) const;

  std::string path_;
  DurableFileWords words_;
  OwnFd file_;
};

}  // namespace cairn::operation
