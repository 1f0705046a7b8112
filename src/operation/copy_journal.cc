#include "operation/copy_journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "base/error.h"

namespace cairn::operation {
namespace {

Error about(const char* doing, const std::string& path) {
  return Error::system(errno, std::string("Could not ") + doing + " the journal '" + path + "'");
}

}  // namespace

void CopyJournal::lock(int fd) const {
  // File systems without locks have none.
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
  in_use();
}

void CopyJournal::in_use() const {
  throw Error(ErrorKind::kLocked, "The journal '" + path_ + "' is in use")
      .hint("Another program is at this copy.");
}

std::optional<CopyRecord> CopyJournal::read() {
  OwnFd file(::open(path_.c_str(), O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file && errno == ENOENT) return std::nullopt;
  if (!file) throw about("open", path_);
  struct stat status = {};
  if (::fstat(file.get(), &status) != 0) throw about("open", path_);
  if (!S_ISREG(status.st_mode))
    throw Error(ErrorKind::kInvalid, "The journal '" + path_ + "' is not a regular file");
  lock(file.get());
  // What another program replaced meanwhile says nothing.
  struct stat named = {};
  if (::stat(path_.c_str(), &named) != 0 || named.st_ino != status.st_ino) in_use();
  std::string text(std::min<uint64_t>(static_cast<uint64_t>(status.st_size),
                                      uint64_t{CopyRecord::kMostBytes} + 1),
                   0);
  size_t got = 0;
  while (got < text.size()) {
    const ssize_t part =
        ::pread(file.get(), text.data() + got, text.size() - got, static_cast<off_t>(got));
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
    const ssize_t part = ::write(fd, text.data() + at, text.size() - at);
    if (part < 0 && errno != EINTR) throw about(doing, path_);
    if (part > 0) at += static_cast<size_t>(part);
  }
  if (::fdatasync(fd) != 0) throw about(doing, path_);
}

void CopyJournal::sync_directory() const {
  const size_t slash = path_.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
  const OwnFd opened(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // Directories that cannot be read, or are not on a disk.
  if (!opened || ::fsync(opened.get()) == 0 || errno == EINVAL) return;
  throw about("make", path_);
}

void CopyJournal::write(const CopyRecord& record) {
  const std::string text = writer_.whole(record);
  if (text.size() > CopyRecord::kMostBytes)
    throw Error(ErrorKind::kTooLarge, "The journal '" + path_ + "' would be too long");
  const std::string made = path_ + ".new";
  // What a run that was cut off has left.
  ::unlink(made.c_str());
  OwnFd file(
      ::open(made.c_str(), O_RDWR | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) {
    Error error = about("make", path_);
    if (error.kind() == ErrorKind::kDenied || errno == EROFS)
      error.hint("Name a file elsewhere.", "resume=FILE");
    throw error;
  }
  try {
    lock(file.get());
    store(file.get(), text, "write");
    if (::rename(made.c_str(), path_.c_str()) != 0) throw about("make", path_);
  } catch (...) {
    ::unlink(made.c_str());
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
  if (::unlink(path_.c_str()) != 0 && errno != ENOENT) throw about("remove", path_);
  file_ = OwnFd();
}

}  // namespace cairn::operation
