#pragma once

#include <optional>
#include <string>

#include "operation/copy_record.h"
#include "operation/durable_file.h"

namespace cairn::operation {

// The DurableFile that keeps a CopyRecord. All methods block, and throw an Error that names the
// file; one caller at a time.
class CopyJournal {
 public:
  explicit CopyJournal(std::string path) : file_(std::move(path)) {}

  const std::string& path() const { return file_.path(); }
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
  void remove() { file_.remove(); }

 private:
  void append_line(const std::string& text);

  DurableFile file_;
  CopyRecordWriter writer_;
  size_t length_ = 0;
};

}  // namespace cairn::operation
