#include "protocol/file/cdrom.h"

#include <fcntl.h>
#include <linux/cdrom.h>
#include <sys/ioctl.h>

#include <cerrno>

#include "async/runtime.h"
#include "base/own_fd.h"
#include "block/context.h"

namespace cairn {
namespace {

class HostCdromDrive : public CdromDrive {
 public:
  explicit HostCdromDrive(int fd) : fd_(fd) {
    // What happened before is of no interest: the first question takes it away.
    static_cast<void>(::ioctl(fd_, CDROM_MEDIA_CHANGED, CDSL_CURRENT));
#ifdef CDROM_TIMED_MEDIA_CHANGE
    cdrom_timed_media_change_info now = {};
    timed_ = ::ioctl(fd_, CDROM_TIMED_MEDIA_CHANGE, &now) == 0;
    opened_at_ = now.last_media_change;
#endif
  }

  Status status() override {
    switch (::ioctl(fd_, CDROM_DRIVE_STATUS, CDSL_CURRENT)) {
      case CDS_DISC_OK:
        return Status::kReady;
      case CDS_TRAY_OPEN:
        return Status::kTrayOpen;
      case CDS_DRIVE_NOT_READY:
        return Status::kNotReady;
      default:
        return Status::kNoMedium;
    }
  }

  bool medium_changed() override {
    // Only this question makes the kernel ask the drive, but any other process that asks takes the
    // answer away; the one with a time does not ask, and keeps the answer for everybody.
    const bool answered = ::ioctl(fd_, CDROM_MEDIA_CHANGED, CDSL_CURRENT) == 1;
#ifdef CDROM_TIMED_MEDIA_CHANGE
    cdrom_timed_media_change_info since = {};
    since.last_media_change = opened_at_;
    if (timed_ && ::ioctl(fd_, CDROM_TIMED_MEDIA_CHANGE, &since) == 0)
      return (since.media_flags & MEDIA_CHANGED_FLAG) != 0 || answered;
#endif
    return answered;
  }

 private:
  int fd_;
  bool timed_ = false;
  int64_t opened_at_ = 0;
};

}  // namespace

std::unique_ptr<CdromDrive> make_host_cdrom_drive(int fd) {
  return std::make_unique<HostCdromDrive>(fd);
}

bool is_cdrom_drive(const std::string& path) {
  const OwnFd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  return fd && ::ioctl(fd.get(), CDROM_DRIVE_STATUS, CDSL_CURRENT) >= 0;
}

Error no_medium(CdromDrive::Status status, std::string_view message) {
  Error error = message.empty() ? Error::system(ENOMEDIUM)
                                : Error(ErrorKind::kNoMedium, std::string(message));
  if (status == CdromDrive::Status::kTrayOpen) error.hint("The tray of the drive is open.");
  if (status == CdromDrive::Status::kNotReady)
    error.hint("The drive is not ready: it may be reading a medium that was just put in.");
  return error;
}

void CdromNode::inspect(bool direct) {
  FileNode::inspect(direct);
  // The kernel leaves an empty drive the size of an earlier medium.
  if (context().profile.need_medium && drive_->status() != CdromDrive::Status::kReady)
    set_length(0);
}

Task<void> CdromNode::check_medium() {
  co_await run_blocking([this] {
    const CdromDrive::Status status = drive_->status();
    if (status != CdromDrive::Status::kReady) throw no_medium(status);
    if (changed_ || drive_->medium_changed()) {
      changed_ = true;
      throw Error(ErrorKind::kIo, "the medium in the drive was changed")
          .hint("Open the drive again to use the new medium.");
    }
  });
}

Task<void> CdromNode::do_read(uint64_t offset, MutableByteSpan out) {
  std::exception_ptr error;
  try {
    co_await FileNode::do_read(offset, out);
  } catch (...) {
    error = std::current_exception();
  }
  // Afterwards: then what was read is known to be of the right medium.
  co_await check_medium();
  if (error) std::rethrow_exception(error);
}

Task<void> CdromNode::do_write(uint64_t offset, ByteSpan in, WriteFlags flags) {
  co_await check_medium();
  co_await FileNode::do_write(offset, in, flags);
}

Task<void> CdromNode::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  co_await check_medium();
  co_await FileNode::do_write_zeroes(offset, length, flags);
}

Task<void> CdromNode::do_discard(uint64_t offset, uint64_t length) {
  co_await check_medium();
  co_await FileNode::do_discard(offset, length);
}

Task<Extent> CdromNode::do_extent(uint64_t offset, uint64_t max) {
  co_await check_medium();
  const Extent extent = co_await FileNode::do_extent(offset, max);
  co_return extent;
}

Task<void> CdromNode::do_resize(ResizeRequest request) {
  co_await check_medium();
  co_await FileNode::do_resize(request);
}

}  // namespace cairn
