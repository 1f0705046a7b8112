#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "base/error.h"
#include "protocol/file/file_node.h"

namespace cairn {

// What a CD-ROM drive reports about itself. The drives of the host are asked by ioctl; tests play
// one.
class CdromDrive {
 public:
  enum class Status { kReady, kNoMedium, kTrayOpen, kNotReady };

  virtual ~CdromDrive() = default;
  // Blocks for as long as the drive takes to answer.
  virtual Status status() = 0;
  // Whether the medium was taken out or another one put in since this object was made. Blocks.
  virtual bool medium_changed() = 0;
};

// FD belongs to the caller and outlives the drive.
std::unique_ptr<CdromDrive> make_host_cdrom_drive(int fd);
// Whether the block device PATH is one. Blocks.
bool is_cdrom_drive(const std::string& path);

// A CD-ROM drive with the medium that it held when it was opened. Without one every request fails
// with kNoMedium. Once the medium has been changed all requests fail, so that the bytes of two
// media are never mixed.
class CdromNode : public FileNode {
 public:
  CdromNode(Context& context, const Driver& driver, std::string path, int fd,
            std::unique_ptr<CdromDrive> drive)
      : FileNode(context, driver, std::move(path), fd, FileKind::kCdrom),
        drive_(std::move(drive)) {}

  void inspect(bool direct) override;
  // `info` has nothing more to print of a drive, as with QEMU.
  Value specific_info() const override { return {}; }
  std::optional<bool> dirty_flag() const override { return std::nullopt; }

 protected:
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override;
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override;
  Task<void> do_discard(uint64_t offset, uint64_t length) override;
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override;
  Task<void> do_resize(ResizeRequest request) override;

 private:
  // Throws when the medium is not the one that was opened.
  Task<void> check_medium();

  std::unique_ptr<CdromDrive> drive_;
  std::atomic<bool> changed_{false};
};

// "No medium found", and what to do about STATUS.
Error no_medium(CdromDrive::Status status, std::string_view message = {});

}  // namespace cairn
