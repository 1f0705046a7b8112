#include "operation/copy_journal.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "base/error.h"
#include "platform/directory.h"
#include "platform/file.h"
#include "platform/lock.h"

namespace cairn::operation {
namespace {

Error about(const char* doing, const std::string& path) {
  return Error::system(errno, std::string("Could not ") + doing + " the journal '" + path + "'");
}

}  // namespace

void CopyJournal::lock(int fd) const {
  // File systems without locks have none.
  if (platform::lock_file(fd) == 0 || errno != EAGAIN) return;
  in_use();
}

void CopyJournal::in_use() const {
  throw Error(ErrorKind::kLocked, "The journal '" + path_ + "' is in use")
      .hint("Another program is at this copy.");
}

std::optional<CopyRecord> CopyJournal::read() {
  OwnFd file(platform::open(path_, O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file && errno == ENOENT) return std::nullopt;
  if (!file) throw about("open", path_);
  const auto status = platform::status_of(file.get());
  if (!status) throw about("open", path_);
  if (!status->is_regular())
    throw Error(ErrorKind::kInvalid, "The journal '" + path_ + "' is not a regular file");
  lock(file.get());
  // What another program replaced meanwhile says nothing.
  const auto named = platform::status(path_);
  if (!named || named->number != status->number) in_use();
  std::string text(std::min<uint64_t>(status->size, uint64_t{CopyRecord::kMostBytes} + 1), 0);
  size_t got = 0;
  while (got < text.size()) {
    const ssize_t part = platform::read_at(file.get(), text.data() + got, text.size() - got, got);
    if (part < 0) throw about("read", path_);
    if (part == 0) break;
    got += static_cast<size_t>(part);
  }
  text.resize(got);
  try {
    CopyRecord record = parse_copy_record(text);
    file_ = std::move(file);
    return record;
  } catch (Error& error) {
    const bool foreign = error.kind() == ErrorKind::kInvalid;
    error.context("The journal '" + path_ + (foreign ? "' cannot be used" : "' is damaged"));
    if (foreign)
      error.hint("Name another file.", "resume=FILE");
    else
      error.hint("Remove it and the incomplete target, and start again.");
    throw;
  }
}

void CopyJournal::store(int fd, const std::string& text, const char* doing) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t part = platform::write(fd, text.data() + at, text.size() - at);
    if (part < 0 && errno != EINTR) throw about(doing, path_);
    if (part > 0) at += static_cast<size_t>(part);
  }
  if (platform::sync_data(fd) != 0) throw about(doing, path_);
}

void CopyJournal::sync_directory() const {
  const OwnFd opened(
      platform::open(platform::directory_of(path_), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // Directories that cannot be read, or are not on a disk.
  if (!opened || platform::sync(opened.get()) == 0 || errno == EINVAL) return;
  throw about("make", path_);
}

void CopyJournal::write(const CopyRecord& record) {
  const std::string text = writer_.whole(record);
  if (text.size() > CopyRecord::kMostBytes)
    throw Error(ErrorKind::kTooLarge, "The journal '" + path_ + "' would be too long");
  const std::string made = path_ + ".new";
  // What a run that was cut off has left.
  platform::remove(made);
  OwnFd file(
      platform::open(made, O_RDWR | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) {
    Error error = about("make", path_);
    if (error.kind() == ErrorKind::kDenied || errno == EROFS)
      error.hint("Name a file elsewhere.", "resume=FILE");
    throw error;
  }
  try {
    lock(file.get());
    store(file.get(), text, "write");
    if (platform::rename(made, path_) != 0) throw about("make", path_);
  } catch (...) {
    platform::remove(made);
    throw;
  }
  sync_directory();
  file_ = std::move(file);
  length_ = text.size();
}

void CopyJournal::append(uint64_t done, uint64_t begun) { append_line(writer_.at(done, begun)); }

void CopyJournal::append(const UploadedPart& part) { append_line(writer_.part(part)); }

void CopyJournal::append_line(const std::string& text) {
  store(file_.get(), text, "write");
  length_ += text.size();
}

void CopyJournal::remove() {
  if (!file_) return;
  if (platform::remove(path_) != 0 && errno != ENOENT) throw about("remove", path_);
  file_ = OwnFd();
}

}  // namespace cairn::operation
