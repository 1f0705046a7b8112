#include "platform/drives.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <string_view>

#include "platform/types.h"

namespace cairn::platform {
namespace {

// The usual sector where a drive does not say.
constexpr uint32_t kSector = 512;
constexpr uint32_t kMostSector = 1 << 20;

bool same_letters(std::string_view text, std::string_view small) {
  return std::equal(text.begin(), text.end(), small.begin(), small.end(), [](char a, char b) {
    return std::tolower(static_cast<unsigned char>(a)) == b;
  });
}

// What follows "\\.\", which may be written with slashes as well; the whole NAME where that is not
// there.
std::string_view without_mark(std::string_view name, bool* marked) {
  const auto slash = [&](size_t at) { return name[at] == '\\' || name[at] == '/'; };
  *marked = name.size() > 4 && slash(0) && slash(1) && name[2] == '.' && slash(3);
  return *marked ? name.substr(4) : name;
}

char small_letter(char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); }

bool contains(const std::vector<unsigned>& numbers, unsigned number) {
  return std::find(numbers.begin(), numbers.end(), number) != numbers.end();
}

// Opens what takes part, and closes it again unless it is kept.
class Opening {
 public:
  explicit Opening(DriveCalls& calls) : calls_(calls) {}
  ~Opening() {
    const int error = errno;
    close_drive(calls_, drive_);
    errno = error;
  }
  Opening(const Opening&) = delete;

  // False, with errno.
  bool lock_volumes(const DriveName& name) {
    for (const char letter : name.disk ? calls_.letters() : std::vector<char>{name.letter}) {
      const DriveName volume{.letter = letter};
      // A drive without a medium has nothing to be locked.
      const auto handle = calls_.open(volume.path(), true);
      if (handle == DriveCalls::kNone) {
        if (!name.disk) return false;
        continue;
      }
      if (name.disk && !contains(calls_.disks_of(handle), name.number)) {
        calls_.close(handle);
        continue;
      }
      drive_.locked.push_back(handle);
      if (!calls_.lock(handle)) {
        errno = EBUSY;
        return false;
      }
      if (!calls_.dismount(handle)) return false;
    }
    return true;
  }

  bool open(const DriveName& name, bool writable) {
    // A volume is written to through the handle that has locked it.
    if (writable && !name.disk) {
      drive_.handle = drive_.locked.back();
      drive_.locked.pop_back();
    } else {
      drive_.handle = calls_.open(name.path(), writable);
    }
    if (drive_.handle == DriveCalls::kNone) return false;
    const auto length = calls_.length(drive_.handle);
    if (!length) return false;
    const uint32_t sector = calls_.sector_bytes(drive_.handle).value_or(kSector);
    drive_.length = *length;
    drive_.sector_bytes = sector >= kSector && sector <= kMostSector && (sector & (sector - 1)) == 0
                              ? sector
                              : kSector;
    return true;
  }

  OpenDrive keep() {
    OpenDrive kept = drive_;
    drive_ = {};
    return kept;
  }

 private:
  DriveCalls& calls_;
  OpenDrive drive_;
};

// Whether the system runs from it, or it cannot be known.
bool is_of_system(DriveCalls& calls, const DriveName& name) {
  const char letter = calls.system_letter();
  if (!name.disk) return name.letter == letter;
  const auto handle = calls.open(DriveName{.letter = letter}.path(), false);
  if (handle == DriveCalls::kNone) return true;
  const std::vector<unsigned> disks = calls.disks_of(handle);
  calls.close(handle);
  return disks.empty() || contains(disks, name.number);
}

}  // namespace

std::string DriveName::path() const {
  return disk ? "\\\\.\\PhysicalDrive" + std::to_string(number)
              : std::string("\\\\.\\") + letter + ":";
}

std::optional<DriveName> drive_name(DriveCalls& calls, const std::string& name) {
  if (name == "/dev/cdrom") {
    for (const char letter : calls.letters())
      if (calls.is_cdrom(letter)) return DriveName{.letter = letter};
    errno = ENOMEDIUM;
    return std::nullopt;
  }
  bool marked = false;
  const std::string_view rest = without_mark(name, &marked);
  if (rest.size() == 2 && rest[1] == ':' && std::isalpha(static_cast<unsigned char>(rest[0])) != 0)
    return DriveName{.letter = small_letter(rest[0])};
  constexpr std::string_view kDisk = "physicaldrive";
  if (!marked || !same_letters(rest.substr(0, kDisk.size()), kDisk)) return std::nullopt;
  DriveName found{.disk = true};
  const char* const end = rest.data() + rest.size();
  const auto [stop, error] = std::from_chars(rest.data() + kDisk.size(), end, found.number);
  if (error != std::errc() || stop != end) return std::nullopt;
  return found;
}

std::optional<OpenDrive> open_drive(DriveCalls& calls, const DriveName& name, bool writable) {
  Opening opening(calls);
  if (writable) {
    if (is_of_system(calls, name)) {
      errno = EPERM;
      return std::nullopt;
    }
    if (!opening.lock_volumes(name)) return std::nullopt;
  }
  if (!opening.open(name, writable)) return std::nullopt;
  return opening.keep();
}

void close_drive(DriveCalls& calls, OpenDrive& drive) {
  if (drive.handle != DriveCalls::kNone) calls.close(drive.handle);
  for (const auto handle : drive.locked) calls.close(handle);
  drive = {};
}

}  // namespace cairn::platform
