#include "job/replacement.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "base/error.h"
#include "platform/directory.h"

namespace cairn {
namespace {

struct Descriptor {
  int fd;
  explicit Descriptor(int number) : fd(number) {}
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  Descriptor(const Descriptor&) = delete;
};

// Access lists and labels. What the file system refuses to set is an error only where it would
// have been obeyed before.
void copy_attributes(int from, int to, const std::string& path) {
  const ssize_t length = ::flistxattr(from, nullptr, 0);
  if (length <= 0) return;
  std::vector<char> names(static_cast<size_t>(length));
  const ssize_t got = ::flistxattr(from, names.data(), names.size());
  if (got < 0) throw Error::system(errno, path);
  for (const char* name = names.data(); name < names.data() + got;
       name += std::char_traits<char>::length(name) + 1) {
    std::vector<char> value(64 << 10);
    const ssize_t bytes = ::fgetxattr(from, name, value.data(), value.size());
    if (bytes < 0) continue;
    if (::fsetxattr(to, name, value.data(), static_cast<size_t>(bytes), 0) == 0) continue;
    if (std::string(name).starts_with("system.posix_acl"))
      throw Error::system(errno, "Could not keep the access list of '" + path + "'");
  }
}

}  // namespace

FileReplacement::FileReplacement(const std::string& path) {
  path_ = check_replaceable(path, &old_);
  const size_t slash = path_.rfind('/');
  folder_ = path_.substr(0, slash + 1);
  pattern_ = folder_ + "." + path_.substr(slash + 1, 200) + ".cairn-XXXXXX";
  unnamed_ = ::open(folder_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (unnamed_ >= 0) {
    new_path_ = platform::unnamed_path(unnamed_);
    return;
  }
  std::string pattern = pattern_;
  const Descriptor made(::mkostemp(pattern.data(), O_CLOEXEC));
  if (made.fd < 0) throw Error::system(errno, "Could not create a file in '" + folder_ + "'");
  new_path_ = pattern;
}

FileReplacement::~FileReplacement() {
  if (unnamed_ >= 0)
    ::close(unnamed_);
  else if (!committed_)
    ::unlink(new_path_.c_str());
}

void FileReplacement::name_new_file() {
  for (int attempt = 0; attempt < 100; ++attempt) {
    // mkostemp() finds a name that is free, which linking needs to be free again.
    std::string name = pattern_;
    const Descriptor taken(::mkostemp(name.data(), O_CLOEXEC));
    if (taken.fd < 0) break;
    ::unlink(name.c_str());
    if (::linkat(AT_FDCWD, new_path_.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0) {
      new_path_ = name;
      ::close(std::exchange(unnamed_, -1));
      return;
    }
    if (errno != EEXIST) break;
  }
  throw Error::system(errno, "Could not create a file in '" + folder_ + "'");
}

void FileReplacement::commit() {
  const Descriptor old(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  if (old.fd < 0) throw Error::system(errno, "Could not open '" + path_ + "'");
  const Descriptor fresh(::open(new_path_.c_str(), O_RDWR | O_CLOEXEC));
  if (fresh.fd < 0) throw Error::system(errno, "Could not open '" + new_path_ + "'");
  struct stat now = {};
  if (::fstat(old.fd, &now) != 0 || now.st_ino != old_.number || now.st_dev != old_.volume)
    throw Error(ErrorKind::kLocked, "'" + path_ + "' was replaced by another file meanwhile");
  struct stat made = {};
  if (::fstat(fresh.fd, &made) != 0) throw Error::system(errno, new_path_);
  if ((made.st_uid != now.st_uid || made.st_gid != now.st_gid) &&
      ::fchown(fresh.fd, now.st_uid, now.st_gid) != 0)
    throw Error::system(errno, "Could not keep the owner of '" + path_ + "'");
  copy_attributes(old.fd, fresh.fd, path_);
  if (::fchmod(fresh.fd, now.st_mode & 07777) != 0)
    throw Error::system(errno, "Could not keep the mode of '" + path_ + "'");
  if (::fsync(fresh.fd) != 0) throw Error::system(errno, new_path_);
  if (unnamed_ >= 0) name_new_file();
  if (::rename(new_path_.c_str(), path_.c_str()) != 0)
    throw Error::system(errno, "Could not replace '" + path_ + "'");
  committed_ = true;
  const Descriptor folder(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.fd < 0 || ::fsync(folder.fd) != 0)
    throw Error::system(errno, "'" + path_ + "' was replaced; writing the directory to the disk");
}

}  // namespace cairn
