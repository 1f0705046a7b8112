#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace cairn::platform {

// Whole drives under the names of Windows: "\\.\PhysicalDriveN" is a disk, "d:" and "\\.\d:" the
// volume with that drive letter, and "/dev/cdrom" the first CD drive. What is decided about them is
// here, apart from the calls of the system, so that it can be tried where there are no such drives.

// What the system is asked. Calls that fail set errno.
class DriveCalls {
 public:
  using Handle = intptr_t;
  static constexpr Handle kNone = -1;

  virtual ~DriveCalls() = default;
  // The letters that have a drive, and whether that of a letter takes CDs.
  virtual std::vector<char> letters() = 0;
  virtual bool is_cdrom(char letter) = 0;
  // The letter of the volume from which the system runs.
  virtual char system_letter() = 0;
  // kNone: it failed.
  virtual Handle open(const std::string& path, bool writable) = 0;
  virtual void close(Handle drive) = 0;
  // The bytes of a disk or a volume, and those of one sector.
  virtual std::optional<uint64_t> length(Handle drive) = 0;
  virtual std::optional<uint32_t> sector_bytes(Handle drive) = 0;
  // The numbers of the disks that hold a volume; none for a CD.
  virtual std::vector<unsigned> disks_of(Handle volume) = 0;
  // So that nobody else opens files of a volume, until the handle is closed. Fails where somebody
  // has some open.
  virtual bool lock(Handle volume) = 0;
  // What the system holds of a locked volume in memory is written and forgotten.
  virtual bool dismount(Handle volume) = 0;
};

// A drive that NAME stands for.
struct DriveName {
  bool disk = false;
  unsigned number = 0;  // of a disk
  char letter = 0;      // of a volume, small
  // As the system opens it.
  std::string path() const;
};
// Nothing where NAME is no drive's. "/dev/cdrom" without a CD drive gives nothing, with ENOMEDIUM.
std::optional<DriveName> drive_name(DriveCalls& calls, const std::string& name);

// A drive that is open, and the volumes on it that are locked meanwhile.
struct OpenDrive {
  DriveCalls::Handle handle = DriveCalls::kNone;
  uint64_t length = 0;
  uint32_t sector_bytes = 512;
  std::vector<DriveCalls::Handle> locked;
};
// Opens NAME. To be written to it, every volume on it is locked and dismounted first. Nothing, with
// errno, and nothing left open: EPERM where the system runs from it and it would be written to,
// EBUSY where somebody uses a volume on it.
std::optional<OpenDrive> open_drive(DriveCalls& calls, const DriveName& name, bool writable);
void close_drive(DriveCalls& calls, OpenDrive& drive);

}  // namespace cairn::platform
