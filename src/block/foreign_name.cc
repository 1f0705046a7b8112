#include "block/foreign_name.h"

#include <algorithm>
#include <cctype>

#include "platform/directory.h"

namespace cairn {
namespace {

constexpr std::string_view kDisks =
    "disks are called /dev/sdX, /dev/nvmeXn1 or /dev/vdX (`lsblk` lists them)";
constexpr std::string_view kCdroms = "CD-ROM drives are called /dev/sr0, /dev/sr1, …";

bool is_letter(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; }

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

// PREFIX and at least one digit after it, then anything.
bool numbered(std::string_view name, std::string_view prefix) {
  return name.size() > prefix.size() && name.starts_with(prefix) &&
         std::isdigit(static_cast<unsigned char>(name[prefix.size()])) != 0;
}

}  // namespace

std::string foreign_name_advice(std::string_view filename) {
  // On Windows these are the names of its own drives and files.
  if (platform::has_drive("c:")) return {};
  const std::string quoted = "'" + std::string(filename) + "'";
  std::string name(filename);
  std::replace(name.begin(), name.end(), '/', '\\');
  const bool device = name.starts_with("\\\\.\\") || name.starts_with("\\\\?\\");
  if (device) name.erase(0, 4);
  const bool drive = name.size() >= 2 && is_letter(name[0]) && name[1] == ':';
  if (drive && name.size() > 2 && name[2] == '\\')
    return quoted + " is a path of Windows: on Linux it begins where that drive is mounted";
  if (drive && (name.size() == 2 || device))
    return quoted + " is a name of Windows: on Linux " + std::string(kDisks) + ", " +
           std::string(kCdroms);
  if (device)
    return quoted + " is a name of Windows: on Linux " +
           std::string(lower(name).starts_with("cdrom") ? kCdroms : kDisks);
  if (numbered(filename, "/dev/disk") || numbered(filename, "/dev/rdisk"))
    return quoted + " is a name of macOS: on Linux " + std::string(kDisks);
  if (filename.starts_with("/dev/cdrom"))
    return "There is no " + quoted + ": " + std::string(kCdroms);
  if (numbered(filename, "/dev/fd"))
    return "There is no " + quoted +
           ": the machine has no floppy controller, or the driver floppy is not loaded; a floppy "
           "drive on USB is a disk, and " +
           std::string(kDisks);
  return {};
}

}  // namespace cairn
