#include "protocol/file/open_file.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/fs.h>
#include <linux/major.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "protocol/file/cdrom.h"

namespace cairn {
namespace {

// Where DEVICE is mounted; empty when it is not.
std::string mount_point(dev_t device) {
  const std::string number = fmt::format("{}:{}", major(device), minor(device));
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words(line);
    std::string id, parent, of, root, point;
    if (words >> id >> parent >> of >> root >> point && of == number) return point;
  }
  return {};
}

Error in_use(FileKind kind, const std::string& path, dev_t device) {
  Error error = Error::system(EBUSY, "Could not open '" + path + "'");
  if (const std::string point = mount_point(device); !point.empty())
    error.hint(fmt::format("It is mounted on '{}': unmount it first (umount {}).", point, point));
  else
    error.hint(
        "It, or a part of it, is mounted, swap, a member of an array or volume group, or open in "
        "another program: `lsblk " +
        path + "` lists.");
  return error.hint(fmt::format("To write to it nevertheless, which can destroy what is on it: "
                                "driver=raw,file.driver={},file.filename={},file.exclusive=off",
                                name_of(kind), path),
                    "image-opts");
}

}  // namespace

std::string_view name_of(FileKind kind) {
  switch (kind) {
    case FileKind::kRegular:
      return "file";
    case FileKind::kDevice:
      return "host_device";
    case FileKind::kCdrom:
      return "host_cdrom";
  }
  return {};
}

OwnFd open_file(FileKind kind, const std::string& path, const OpenMode& mode) {
  // Looked at before it is opened: a FIFO would block.
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0)
    throw Error::system(errno, "Could not open '" + path + "'");
  if (S_ISDIR(status.st_mode) && mode.writable)
    throw Error::system(EISDIR, "Could not open '" + path + "'");
  if (kind == FileKind::kRegular && !S_ISREG(status.st_mode))
    throw Error(ErrorKind::kInvalid, "'file' driver requires '" + path + "' to be a regular file");
  const bool block = S_ISBLK(status.st_mode);
  if (kind != FileKind::kRegular && !block && !S_ISCHR(status.st_mode))
    throw Error(ErrorKind::kInvalid,
                fmt::format("'{}' driver requires '{}' to be either a character or block device",
                            name_of(kind), path));
  if (S_ISCHR(status.st_mode) && major(status.st_rdev) == SCSI_GENERIC_MAJOR)
    throw Error(ErrorKind::kUnsupported,
                "'" + path + "' passes SCSI commands on, which is not supported")
        .hint("Open the block device of the same drive: `lsscsi -g` lists its name.");
  int flags = (mode.writable ? O_RDWR : O_RDONLY) | O_CLOEXEC;
  if (mode.direct) flags |= O_DIRECT;
  if (mode.exclusive && block) flags |= O_EXCL;
  // A floppy drive examines its medium only when it is opened without.
  if (!block || (kind == FileKind::kCdrom && !mode.medium)) flags |= O_NONBLOCK;
  OwnFd fd(::open(path.c_str(), flags));
  if (!fd) {
    const int error = errno;
    if (error == EINVAL && mode.direct)
      throw Error(ErrorKind::kInvalid,
                  "Could not open '" + path + "': filesystem does not support O_DIRECT");
    if (error == EBUSY && mode.exclusive) throw in_use(kind, path, status.st_rdev);
    throw Error::system(error == EROFS ? EACCES : error, "Could not open '" + path + "'");
  }
  int read_only = 0;
  if (kind != FileKind::kRegular && mode.writable && ::ioctl(fd.get(), BLKROGET, &read_only) == 0 &&
      read_only != 0)
    throw Error::system(EACCES, "The device is not writable");
  return fd;
}

}  // namespace cairn
