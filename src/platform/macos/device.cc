#include "platform/device.h"

#include <stdlib.h>
#include <sys/disk.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "platform/macos/disks.h"

namespace cairn::platform {

std::string device_to_open(const std::string& path) {
  if (path != "/dev/cdrom") return raw_path(path);
  const std::string medium = first_optical_medium();
  if (medium.empty()) errno = ENOMEDIUM;
  return raw_path(medium);
}

// Looked at once it is open: what is mounted before is seen, and the system mounts nothing that is
// open for writing.
int open_device(const std::string& path, const FileStatus& status, int flags, bool claim) {
  const int fd = platform::open(path, flags);
  if (fd < 0 || !claim || mount_point(status.special).empty()) return fd;
  ::close(fd);
  errno = EBUSY;
  return -1;
}

const bool kWritesToWhatIsInUse = false;

std::string shown_by(const std::string& path) {
  return "mounted, or open in another program: `diskutil list` and `lsof " + path + "` show";
}

std::string advice_on_device(int) { return {}; }

std::optional<uint32_t> logical_block_bytes(int fd) {
  uint32_t bytes = 0;
  if (::ioctl(fd, DKIOCGETBLOCKSIZE, &bytes) != 0 || bytes == 0) return std::nullopt;
  return bytes;
}

bool takes_whole_blocks(int fd) { return logical_block_bytes(fd).has_value(); }

bool is_write_protected(int fd) {
  uint32_t writable = 0;
  return ::ioctl(fd, DKIOCISWRITABLE, &writable) == 0 && writable == 0;
}

int discard_blocks(int fd, uint64_t offset, uint64_t length) {
  dk_extent_t extent = {};
  extent.offset = offset;
  extent.length = length;
  dk_unmap_t request = {};
  request.extents = &extent;
  request.extentsCount = 1;
  return ::ioctl(fd, DKIOCUNMAP, &request);
}

bool passes_scsi_commands(const FileStatus&) { return false; }

// A whole disk is in use when a part of it is, and the other way round.
std::string mount_point(uint64_t device) {
  char name[64] = "";
  const auto number = static_cast<dev_t>(device);
  if (::devname_r(number, S_IFBLK, name, sizeof name) == nullptr &&
      ::devname_r(number, S_IFCHR, name, sizeof name) == nullptr)
    return {};
  const auto disk = disk_of(name);
  if (!disk) return {};
  // The list belongs to the system.
  struct statfs* mounts = nullptr;
  const int count = ::getmntinfo(&mounts, MNT_NOWAIT);
  for (int at = 0; at < count; ++at) {
    const auto from = disk_of(mounts[at].f_mntfromname);
    if (from && overlap(*from, *disk)) return mounts[at].f_mntonname;
  }
  return {};
}

// The file systems of macOS have no such settings.
void set_no_copy_on_write(int) {}

int set_extent_size_hint(int, uint32_t) {
  errno = ENOTSUP;
  return -1;
}

std::optional<uint64_t> extent_size_hint(int) { return std::nullopt; }

}  // namespace cairn::platform
