#include "platform/device.h"

#include <cerrno>

#include "platform/windows/descriptors.h"
#include "platform/windows/drive_table.h"

namespace cairn::platform {

// open() itself knows the names of drives, and always claims what is written to.
std::string device_to_open(const std::string& path) { return path; }
int open_device(const std::string& path, const FileStatus&, int flags, bool) {
  return platform::open(path, flags);
}
const bool kWritesToWhatIsInUse = false;

std::string shown_by(const std::string&) {
  return "open in a program or a window: close it, or take the drive offline in Disk Management";
}

std::string advice_on_device(int error) {
  if (error == EPERM) return "Windows runs from this drive, or does not say from which it does.";
  if (error == EACCES) return "Whole drives are for administrators: start the prompt as one.";
  return {};
}

std::optional<uint32_t> logical_block_bytes(int fd) {
  const auto drive = drive_of(fd);
  return drive ? std::optional(drive->sector_bytes) : std::nullopt;
}
bool takes_whole_blocks(int fd) { return drive_of(fd).has_value(); }
bool is_write_protected(int) { return false; }
int discard_blocks(int, uint64_t, uint64_t) { return fail_as(EOPNOTSUPP); }
bool passes_scsi_commands(const FileStatus&) { return false; }
std::string mount_point(uint64_t) { return {}; }

void set_no_copy_on_write(int) {}
int set_extent_size_hint(int, uint32_t) { return fail_as(EOPNOTSUPP); }
std::optional<uint64_t> extent_size_hint(int) { return std::nullopt; }

}  // namespace cairn::platform
