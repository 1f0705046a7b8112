#include "platform/device.h"

#include <linux/fs.h>
#include <linux/major.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include <fstream>
#include <sstream>

namespace cairn::platform {

std::string device_to_open(const std::string& path) { return path; }

// The kernel knows what of a block device is in use; others are claimed by nobody.
int open_device(const std::string& path, const FileStatus& status, int flags, bool claim) {
  const bool block = status.type == FileType::kBlockDevice;
  return platform::open(path, claim && block ? flags | O_EXCL : flags);
}

const bool kWritesToWhatIsInUse = true;

std::string shown_by(const std::string& path) {
  return "mounted, swap, a member of an array or volume group, or open in another program: "
         "`lsblk " +
         path + "` lists";
}

std::string advice_on_device(int) { return {}; }

std::optional<uint32_t> logical_block_bytes(int fd) {
  int bytes = 0;
  if (::ioctl(fd, BLKSSZGET, &bytes) != 0 || bytes <= 0) return std::nullopt;
  return static_cast<uint32_t>(bytes);
}

bool takes_whole_blocks(int) { return false; }

bool is_write_protected(int fd) {
  int read_only = 0;
  return ::ioctl(fd, BLKROGET, &read_only) == 0 && read_only != 0;
}

int discard_blocks(int fd, uint64_t offset, uint64_t length) {
  uint64_t range[2] = {offset, length};
  return ::ioctl(fd, BLKDISCARD, range);
}

bool passes_scsi_commands(const FileStatus& status) {
  return status.type == FileType::kCharacterDevice && major(status.special) == SCSI_GENERIC_MAJOR;
}

std::string mount_point(uint64_t device) {
  const std::string number = std::to_string(major(device)) + ":" + std::to_string(minor(device));
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words(line);
    std::string id, parent, of, root, point;
    if (words >> id >> parent >> of >> root >> point && of == number) return point;
  }
  return {};
}

void set_no_copy_on_write(int fd) {
  int flags = 0;
  if (::ioctl(fd, FS_IOC_GETFLAGS, &flags) != 0) return;
  flags |= FS_NOCOW_FL;
  static_cast<void>(::ioctl(fd, FS_IOC_SETFLAGS, &flags));
}

int set_extent_size_hint(int fd, uint32_t bytes) {
  fsxattr attributes = {};
  if (::ioctl(fd, FS_IOC_FSGETXATTR, &attributes) != 0) return -1;
  attributes.fsx_xflags |= FS_XFLAG_EXTSIZE;
  attributes.fsx_extsize = bytes;
  return ::ioctl(fd, FS_IOC_FSSETXATTR, &attributes);
}

std::optional<uint64_t> extent_size_hint(int fd) {
  fsxattr attributes = {};
  if (::ioctl(fd, FS_IOC_FSGETXATTR, &attributes) != 0 ||
      (attributes.fsx_xflags & FS_XFLAG_EXTSIZE) == 0)
    return std::nullopt;
  return attributes.fsx_extsize;
}

}  // namespace cairn::platform
