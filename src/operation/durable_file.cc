#include "operation/durable_file.h"

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "platform/directory.h"
#include "platform/file.h"
#include "platform/lock.h"

namespace cairn::operation {

Error DurableFile::about(const char* doing) const {
  return Error::system(
      errno, std::string("Could not ") + doing + " the " + words_.noun + " '" + path_ + "'");
}

void DurableFile::lock(int fd) const {
  // File systems without locks have none.
  if (platform::lock_file(fd) == 0 || errno != EAGAIN) return;
  in_use();
}

void DurableFile::in_use() const {
  throw Error(ErrorKind::kLocked, std::string("The ") + words_.noun + " '" + path_ + "' is in use")
      .hint(words_.in_use);
}

std::optional<std::string> DurableFile::read(size_t most) {
  OwnFd file(platform::open(path_, O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file && errno == ENOENT) return std::nullopt;
  if (!file) throw about("open");
  const auto status = platform::status_of(file.get());
  if (!status) throw about("open");
  if (!status->is_regular())
    throw Error(ErrorKind::kInvalid,
                std::string("The ") + words_.noun + " '" + path_ + "' is not a regular file");
  lock(file.get());
  // What another program replaced meanwhile says nothing.
  const auto named = platform::status(path_);
  if (!named || named->number != status->number) in_use();
  std::string text(std::min<uint64_t>(status->size, uint64_t{most} + 1), 0);
  size_t got = 0;
  while (got < text.size()) {
    const ssize_t part = platform::read_at(file.get(), text.data() + got, text.size() - got, got);
    if (part < 0) throw about("read");
    if (part == 0) break;
    got += static_cast<size_t>(part);
  }
  text.resize(got);
  file_ = std::move(file);
  return text;
}

void DurableFile::store(int fd, const std::string& text) const {
  for (size_t at = 0; at < text.size();) {
    const ssize_t part = platform::write(fd, text.data() + at, text.size() - at);
    if (part < 0 && errno != EINTR) throw about("write");
    if (part > 0) at += static_cast<size_t>(part);
  }
  if (platform::sync_data(fd) != 0) throw about("write");
}

void DurableFile::sync_directory() const {
  const OwnFd opened(
      platform::open(platform::directory_of(path_), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // Directories that cannot be read, or are not on a disk.
  if (!opened || platform::sync(opened.get()) == 0 || errno == EINVAL) return;
  throw about("make");
}

void DurableFile::replace(const std::string& text) {
  const std::string made = path_ + ".new";
  // What a run that was cut off has left.
  platform::remove(made);
  OwnFd file(
      platform::open(made, O_RDWR | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) {
    Error error = about("make");
    if (error.kind() == ErrorKind::kDenied || errno == EROFS)
      error.hint(words_.elsewhere, words_.option);
    throw error;
  }
  try {
    lock(file.get());
    store(file.get(), text);
    if (platform::rename(made, path_) != 0) throw about("make");
  } catch (...) {
    platform::remove(made);
    throw;
  }
  sync_directory();
  file_ = std::move(file);
}

void DurableFile::append(const std::string& text) { store(file_.get(), text); }

void DurableFile::clear() {
  if (platform::set_length(file_.get(), 0) != 0 || platform::sync(file_.get()) != 0)
    throw about("clear");
}

void DurableFile::remove() {
  if (!file_) return;
  if (platform::remove(path_) != 0 && errno != ENOENT) throw about("remove");
  file_ = OwnFd();
}

}  // namespace cairn::operation
