// src/platform/macos: what macOS has in a way of its own. Nothing here was run on a Mac: see
// docs/macos.md. Sources here include headers of the system and of src/platform.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cairn::platform {

// A disk of macOS or a part of one, as its device is called: disk2, rdisk2s1.
struct DiskName {
  uint32_t unit = 0;
  std::string slices;  // "s1", "s1s2"; empty: the whole disk
  bool raw = false;    // the character device, that reads and writes whole blocks, without a cache
};

// What PATH says, which may begin with /dev/; nothing where it is the name of no disk.
std::optional<DiskName> disk_of(std::string_view path);
// The character device of a disk; other paths stay.
std::string raw_path(const std::string& path);
// Whether one is the other, or a part of it.
bool overlap(const DiskName& one, const DiskName& other);

// The part of a range that consists of whole units, between what comes before and after it.
struct WholeUnits {
  uint64_t offset = 0;
  uint64_t length = 0;  // 0: no unit is whole
};
WholeUnits whole_units(uint64_t offset, uint64_t length, uint64_t unit);

// The device of the first CD, DVD or Blu-ray medium that the system has; empty: none.
std::string first_optical_medium();
// The bytes of a disk device; nothing, with errno, of other files.
std::optional<uint64_t> disk_bytes(int fd);

}  // namespace cairn::platform
