#include <linux/cdrom.h>
#include <sys/ioctl.h>

#include "base/own_fd.h"
#include "protocol/file/cdrom.h"

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
  const OwnFd fd(platform::open(path, O_RDONLY | O_NONBLOCK));
  return fd && ::ioctl(fd.get(), CDROM_DRIVE_STATUS, CDSL_CURRENT) >= 0;
}

}  // namespace cairn
