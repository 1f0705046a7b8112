#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "platform/file.h"

namespace cairn::platform {

// What is opened where a user names PATH as a device; it may be another name of the same one.
// Empty, with errno: there is no such device.
std::string device_to_open(const std::string& path);
// Opens the device PATH, which has this STATUS; FLAGS as of open(). With CLAIM nothing is opened,
// EBUSY, where it or a part of it is in use: mounted, and what else the system knows of.
int open_device(const std::string& path, const FileStatus& status, int flags, bool claim);
// Whether the system lets such a device be written to where it is not claimed.
extern const bool kWritesToWhatIsInUse;
// What shows people who uses the device PATH: a sentence without its end, for messages.
std::string shown_by(const std::string& path);
// What to do where the device cannot be opened for ERROR; empty where that says it all.
std::string advice_on_device(int error);
// The unit of what the block device FD can write, zero and discard; nothing for other devices.
std::optional<uint32_t> logical_block_bytes(int fd);
// Whether whole blocks alone can be read and written, also through the memory of the system.
bool takes_whole_blocks(int fd);
// Whether the device FD refuses to be written to.
bool is_write_protected(int fd);
int discard_blocks(int fd, uint64_t offset, uint64_t length);
// A device that takes commands of SCSI in place of reads and writes.
bool passes_scsi_commands(const FileStatus& status);
// Where the device of the number DEVICE is mounted; empty when it is not.
std::string mount_point(uint64_t device);

// Of regular files, where the file system has such: that data is overwritten in place, and how
// much is allocated at a time.
void set_no_copy_on_write(int fd);
int set_extent_size_hint(int fd, uint32_t bytes);
std::optional<uint64_t> extent_size_hint(int fd);

}  // namespace cairn::platform
