#pragma once

#include <optional>
#include <string>

#include "base/own_fd.h"
#include "operation/copy_record.h"

namespace cairn::operation {

// The file that keeps a CopyRecord. What a method has written is on stable storage when it returns;
// a crash leaves the old content or the new. Locked against other programs of ours. All methods
// block, and throw an Error that names the file; one caller at a time.
class CopyJournal {
 public:
  explicit CopyJournal(std::string path) : path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  // What the file says; nothing where there is none. Throws kLocked where it is in use.
  std::optional<CopyRecord> read();
  // Replaces the content; makes the file where there is none.
  void write(const CopyRecord& record);
  // Adds a place to what was written. After a failure only write() and remove() may follow.
  void append(uint64_t done, uint64_t begun);
  // Adds a part of an upload; the same holds.
  void append(const UploadedPart& part);
  // Bytes in the file.
  size_t length() const { return length_; }
  void remove();

 private:
  void lock(int fd) const;
  [[noreturn]] void in_use() const;
  void append_line(const std::string& text);
  void store(int fd, const std::string& text, const char* doing);
  void sync_directory() const;

  std::string path_;
  OwnFd file_;
  CopyRecordWriter writer_;
  size_t length_ = 0;
};

}  // namespace cairn::operation
