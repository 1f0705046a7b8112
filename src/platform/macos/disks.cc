#include "platform/macos/disks.h"

#include <CoreFoundation/CoreFoundation.h>
#include <IOKit/IOKitLib.h>
#include <sys/disk.h>
#include <sys/ioctl.h>

#include <charconv>

#include "platform/types.h"

namespace cairn::platform {
namespace {

constexpr std::string_view kDevices = "/dev/";
constexpr const char* kOpticalMedia[] = {"IOCDMedia", "IODVDMedia", "IOBDMedia"};

// "s" and a number, as often as there are partitions in partitions.
bool are_slices(std::string_view text) {
  while (!text.empty()) {
    if (text.front() != 's') return false;
    size_t digits = 1;
    while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9') ++digits;
    if (digits == 1) return false;
    text.remove_prefix(digits);
  }
  return true;
}

// Whether PART is WHOLE, or begins with it where a slice ends: s1 holds s1s2, and not s12.
bool within(std::string_view part, std::string_view whole) {
  return part.starts_with(whole) && (part.size() == whole.size() || part[whole.size()] == 's');
}

std::string bsd_name(io_object_t medium) {
  const CFTypeRef found =
      IORegistryEntryCreateCFProperty(medium, CFSTR("BSD Name"), kCFAllocatorDefault, 0);
  if (found == nullptr) return {};
  char name[128] = "";
  const bool is_text = CFGetTypeID(found) == CFStringGetTypeID() &&
                       CFStringGetCString(static_cast<CFStringRef>(found), name, sizeof name,
                                          kCFStringEncodingUTF8) != 0;
  CFRelease(found);
  return is_text ? name : "";
}

}  // namespace

std::optional<DiskName> disk_of(std::string_view path) {
  if (path.starts_with(kDevices)) path.remove_prefix(kDevices.size());
  DiskName name;
  name.raw = path.starts_with('r');
  if (name.raw) path.remove_prefix(1);
  if (!path.starts_with("disk")) return std::nullopt;
  path.remove_prefix(4);
  const auto [rest, error] = std::from_chars(path.data(), path.data() + path.size(), name.unit);
  if (error != std::errc()) return std::nullopt;
  path.remove_prefix(static_cast<size_t>(rest - path.data()));
  if (!are_slices(path)) return std::nullopt;
  name.slices = path;
  return name;
}

std::string raw_path(const std::string& path) {
  const auto name = disk_of(path);
  if (!path.starts_with(kDevices) || !name || name->raw) return path;
  return std::string(kDevices) + "r" + path.substr(kDevices.size());
}

bool overlap(const DiskName& one, const DiskName& other) {
  return one.unit == other.unit &&
         (within(one.slices, other.slices) || within(other.slices, one.slices));
}

WholeUnits whole_units(uint64_t offset, uint64_t length, uint64_t unit) {
  const uint64_t past = offset % unit;
  const uint64_t before = past == 0 ? 0 : unit - past;
  if (length < before) return {};
  return {offset + before, (length - before) / unit * unit};
}

std::string first_optical_medium() {
  for (const char* const kind : kOpticalMedia) {
    io_iterator_t found = 0;
    // The dictionary is given away.
    if (IOServiceGetMatchingServices(0, IOServiceMatching(kind), &found) != KERN_SUCCESS) continue;
    std::string name;
    for (io_object_t medium = 0; name.empty() && (medium = IOIteratorNext(found)) != 0;) {
      name = bsd_name(medium);
      IOObjectRelease(medium);
    }
    IOObjectRelease(found);
    if (disk_of(name)) return std::string(kDevices) + name;
  }
  return {};
}

std::optional<uint64_t> disk_bytes(int fd) {
  uint32_t block = 0;
  uint64_t count = 0;
  if (::ioctl(fd, DKIOCGETBLOCKSIZE, &block) != 0 || ::ioctl(fd, DKIOCGETBLOCKCOUNT, &count) != 0)
    return std::nullopt;
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(uint64_t{block}, count, &bytes) || bytes > INT64_MAX) {
    errno = EOVERFLOW;
    return std::nullopt;
  }
  return bytes;
}

}  // namespace cairn::platform
