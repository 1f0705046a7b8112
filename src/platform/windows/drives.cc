#include "platform/drives.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <map>
#include <mutex>

#include "platform/windows/descriptors.h"
#include "platform/windows/drive_table.h"
// After the headers of Windows.
#include <winioctl.h>

namespace cairn::platform {
namespace {

HANDLE native(DriveCalls::Handle drive) { return reinterpret_cast<HANDLE>(drive); }

// False, with errno.
bool control(DriveCalls::Handle drive, DWORD code, void* answer, size_t room) {
  DWORD got = 0;
  if (::DeviceIoControl(native(drive), code, nullptr, 0, answer, static_cast<DWORD>(room), &got,
                        nullptr) != 0)
    return true;
  fail();
  return false;
}

class SystemDrives : public DriveCalls {
 public:
  std::vector<char> letters() override {
    std::vector<char> found;
    const DWORD there = ::GetLogicalDrives();
    for (unsigned i = 0; i < 26; ++i)
      if ((there >> i & 1) != 0) found.push_back(static_cast<char>('a' + i));
    return found;
  }

  bool is_cdrom(char letter) override {
    const std::wstring root = {static_cast<wchar_t>(letter), L':', L'\\'};
    return ::GetDriveTypeW(root.c_str()) == DRIVE_CDROM;
  }

  char system_letter() override {
    std::array<wchar_t, MAX_PATH> folder{};
    const UINT length = ::GetWindowsDirectoryW(folder.data(), static_cast<UINT>(folder.size()));
    return length == 0 ? 'c' : static_cast<char>(std::tolower(static_cast<int>(folder[0])));
  }

  Handle open(const std::string& path, bool writable) override {
    const DWORD access = writable ? GENERIC_READ | GENERIC_WRITE : GENERIC_READ;
    const HANDLE handle =
        ::CreateFileW(widen(path).c_str(), access, FILE_SHARE_READ | FILE_SHARE_WRITE, nullptr,
                      OPEN_EXISTING, 0, nullptr);
    if (handle == INVALID_HANDLE_VALUE) {
      fail();
      return kNone;
    }
    return reinterpret_cast<Handle>(handle);
  }

  void close(Handle drive) override { ::CloseHandle(native(drive)); }

  std::optional<uint64_t> length(Handle drive) override {
    GET_LENGTH_INFORMATION found{};
    if (!control(drive, IOCTL_DISK_GET_LENGTH_INFO, &found, sizeof found)) return std::nullopt;
    return static_cast<uint64_t>(found.Length.QuadPart);
  }

  std::optional<uint32_t> sector_bytes(Handle drive) override {
    DISK_GEOMETRY found{};
    if (!control(drive, IOCTL_DISK_GET_DRIVE_GEOMETRY, &found, sizeof found)) return std::nullopt;
    return static_cast<uint32_t>(found.BytesPerSector);
  }

  std::vector<unsigned> disks_of(Handle volume) override {
    constexpr size_t kMostExtents = 128;
    alignas(VOLUME_DISK_EXTENTS)
        std::array<char, sizeof(VOLUME_DISK_EXTENTS) + kMostExtents * sizeof(DISK_EXTENT)>
            room{};
    if (!control(volume, IOCTL_VOLUME_GET_VOLUME_DISK_EXTENTS, room.data(), room.size())) return {};
    const auto* const found = reinterpret_cast<const VOLUME_DISK_EXTENTS*>(room.data());
    std::vector<unsigned> numbers;
    for (DWORD i = 0; i < std::min<DWORD>(found->NumberOfDiskExtents, kMostExtents); ++i)
      numbers.push_back(static_cast<unsigned>(found->Extents[i].DiskNumber));
    return numbers;
  }

  bool lock(Handle volume) override { return control(volume, FSCTL_LOCK_VOLUME, nullptr, 0); }
  bool dismount(Handle volume) override {
    return control(volume, FSCTL_DISMOUNT_VOLUME, nullptr, 0);
  }
};

SystemDrives system_drives;
std::mutex drives_mutex;
std::map<int, OpenDrive> open_drives;  // by descriptor

}  // namespace

std::optional<DriveName> named_drive(const std::string& path) {
  errno = 0;
  return drive_name(system_drives, path);
}

int open_named_drive(const DriveName& name, bool writable) {
  const auto drive = open_drive(system_drives, name, writable);
  if (!drive) return -1;
  const int fd = add_descriptor(Descriptor::Kind::kFile, static_cast<uintptr_t>(drive->handle));
  if (fd < 0) {
    for (const auto volume : drive->locked) system_drives.close(volume);
    return -1;
  }
  find_descriptor(fd)->writable = writable;
  const std::lock_guard lock(drives_mutex);
  open_drives[fd] = *drive;
  return fd;
}

std::optional<OpenDrive> drive_of(int fd) {
  const std::lock_guard lock(drives_mutex);
  const auto found = open_drives.find(fd);
  return found == open_drives.end() ? std::nullopt : std::optional(found->second);
}

void forget_drive(int fd) {
  const std::lock_guard lock(drives_mutex);
  const auto found = open_drives.find(fd);
  if (found == open_drives.end()) return;
  for (const auto volume : found->second.locked) system_drives.close(volume);
  open_drives.erase(found);
}

}  // namespace cairn::platform
