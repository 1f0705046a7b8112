#include "protocol/file/open_file.h"

#include <fmt/core.h>

#include <cerrno>

#include "base/error.h"
#include "platform/device.h"
#include "platform/directory.h"
#include "protocol/file/cdrom.h"

namespace cairn {
namespace {

Error in_use(FileKind kind, const std::string& path, uint64_t device) {
  Error error = Error::system(EBUSY, "Could not open '" + path + "'");
  if (const std::string point = platform::mount_point(device); !point.empty())
    error.hint(fmt::format("It is mounted on '{}': unmount it first (umount {}).", point, point));
  else
    error.hint("It, or a part of it, is " + platform::shown_by(path) + ".");
  if (!platform::kWritesToWhatIsInUse) return error;
  return error.hint(fmt::format("To write to it nevertheless, which can destroy what is on it: "
                                "driver=raw,file.driver={},file.filename={},file.exclusive=off",
                                name_of(kind), path),
                    "image-opts");
}

}  // namespace

void check_name(const std::string& path, std::string_view verb) {
  if (const std::string why = platform::unfit_name(path); !why.empty())
    throw Error(ErrorKind::kInvalid, fmt::format("Could not {} '{}': {}", verb, path, why));
}

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
  const std::string opened = kind == FileKind::kRegular ? path : platform::device_to_open(path);
  const auto status = opened.empty() ? std::nullopt : platform::status(opened);
  const int missing = errno;
  if (!status || status->type == platform::FileType::kCharacterDevice) check_name(path, "open");
  if (!status) throw Error::system(missing, "Could not open '" + path + "'");
  if (status->is_directory() && mode.writable)
    throw Error::system(EISDIR, "Could not open '" + path + "'");
  if (kind == FileKind::kRegular && !status->is_regular())
    throw Error(ErrorKind::kInvalid, "'file' driver requires '" + path + "' to be a regular file");
  const bool block = status->type == platform::FileType::kBlockDevice;
  if (kind != FileKind::kRegular && !status->is_device())
    throw Error(ErrorKind::kInvalid,
                fmt::format("'{}' driver requires '{}' to be either a character or block device",
                            name_of(kind), path));
  if (platform::passes_scsi_commands(*status))
    throw Error(ErrorKind::kUnsupported,
                "'" + path + "' passes SCSI commands on, which is not supported")
        .hint("Open the block device of the same drive: `lsscsi -g` lists its name.");
  int flags = mode.writable ? O_RDWR : O_RDONLY;
  if (mode.direct) flags |= O_DIRECT;
  // A floppy drive examines its medium only when it is opened without.
  if (!block || (kind == FileKind::kCdrom && !mode.medium)) flags |= O_NONBLOCK;
  OwnFd fd(kind == FileKind::kRegular
               ? platform::open(path, flags)
               : platform::open_device(opened, *status, flags, mode.exclusive));
  if (!fd) {
    const int error = errno;
    if (error == EINVAL && mode.direct)
      throw Error(ErrorKind::kInvalid,
                  "Could not open '" + path + "': filesystem does not support O_DIRECT");
    if (error == EBUSY && mode.exclusive) throw in_use(kind, path, status->special);
    Error refused = Error::system(error == EROFS ? EACCES : error, "Could not open '" + path + "'");
    if (const std::string advice = platform::advice_on_device(error);
        block && mode.writable && !advice.empty())
      refused.hint(advice);
    throw std::move(refused);
  }
  if (kind != FileKind::kRegular && mode.writable && platform::is_write_protected(fd.get()))
    throw Error::system(EACCES, "The device is not writable");
  return fd;
}

}  // namespace cairn
