#include "platform/folder.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>
#include <utility>

namespace cairn::platform {
namespace {

// Closes it at the end of a block, and leaves errno as it is.
class Step {
 public:
  explicit Step(int fd) : fd_(fd) {}
  Step(const Step&) = delete;
  ~Step() { move_to(-1); }
  int get() const { return fd_; }
  void move_to(int fd) {
    const int error = errno;
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
    errno = error;
  }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

int refuse(int error) {
  errno = error;
  return -1;
}

std::string path_of(int fd) {
  std::array<char, PATH_MAX> path{};
  return ::fcntl(fd, F_GETPATH, path.data()) == 0 ? path.data() : "";
}

// The directory NAME in another one. The system may take a link for a file that is no directory.
int step_into(int folder, const std::string& name) {
  const int fd = ::openat(folder, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd >= 0 || errno != ENOTDIR) return fd;
  const auto found = status_in(folder, name);
  return refuse(found && found->type == FileType::kLink ? ELOOP : ENOTDIR);
}

// The directory that holds the last part of PATH, which is left there, past links nowhere.
int folder_above(int folder, std::string_view* path) {
  Step at(::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (size_t slash; at.get() >= 0 && (slash = path->find('/')) != std::string_view::npos;
       path->remove_prefix(slash + 1))
    at.move_to(step_into(at.get(), std::string(path->substr(0, slash))));
  return at.release();
}

}  // namespace

int rename_in(int from_folder, const std::string& from, int to_folder, const std::string& to,
              Overwrite overwrite) {
  if (overwrite == Overwrite::kYes)
    return ::renameat(from_folder, from.c_str(), to_folder, to.c_str());
  if (::renameatx_np(from_folder, from.c_str(), to_folder, to.c_str(), RENAME_EXCL) == 0) return 0;
  if (errno != ENOTSUP && errno != EINVAL) return -1;
  // File systems that cannot ask and move in one step.
  if (status_in(to_folder, to)) return refuse(EEXIST);
  return ::renameat(from_folder, from.c_str(), to_folder, to.c_str());
}

// Without links each part is opened in the one before. With them the path is followed, and where
// that has led is looked at then.
int open_below(int folder, const std::string& path, int flags, Links links, unsigned mode) {
  if (links == Links::kRefuse) {
    std::string_view rest = path;
    const Step above(folder_above(folder, &rest));
    if (above.get() < 0) return -1;
    return open_in(above.get(), rest.empty() ? "." : std::string(rest), flags, mode);
  }
  Step found(
      ::openat(folder, path.empty() ? "." : path.c_str(), flags | O_NONBLOCK | O_CLOEXEC, mode));
  if (found.get() < 0) return -1;
  const std::string top = path_of(folder);
  const std::string place = path_of(found.get());
  const bool below =
      place == top || (place.starts_with(top) && (top == "/" || place[top.size()] == '/'));
  return !top.empty() && below ? found.release() : refuse(EXDEV);
}

std::optional<FileStatus> status_below(int folder, const std::string& path, Links links) {
  if (links == Links::kRefuse) {
    std::string_view rest = path;
    const Step above(folder_above(folder, &rest));
    if (above.get() < 0) return std::nullopt;
    return rest.empty() ? status_of(above.get()) : status_in(above.get(), std::string(rest));
  }
  const Step found(open_below(folder, path, O_RDONLY | O_NOCTTY, links));
  if (found.get() < 0) return std::nullopt;
  return status_of(found.get());
}

int sync_volume(int fd) { return ::fsync_volume_np(fd, SYNC_VOLUME_FULLSYNC | SYNC_VOLUME_WAIT); }

}  // namespace cairn::platform
