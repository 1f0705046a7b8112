#pragma once

#include <linux/ioctl.h>

#include <cstdint>

// The kernel's interface to IOMMUs as files, of Linux 6.2 and later, and VFIO's calls for it (6.6):
// the headers of Debian 12 do not have them.
namespace cairn::nvme::iommufd {

constexpr unsigned long kBindDevice = _IO(';', 100 + 18);
struct BindDevice {
  uint32_t argsz = 0, flags = 0;
  int32_t iommufd = -1;
  uint32_t device = 0;  // answer
};
constexpr unsigned long kAttachDevice = _IO(';', 100 + 19);
struct AttachDevice {
  uint32_t argsz = 0, flags = 0;
  uint32_t space = 0;
};

constexpr unsigned long kAllocateSpace = _IO(';', 0x81);
struct AllocateSpace {
  uint32_t size = 0, flags = 0;
  uint32_t space = 0;  // answer
};
constexpr unsigned long kAddressRanges = _IO(';', 0x84);
struct AddressRange {
  uint64_t first = 0, last = 0;
};
struct AddressRanges {
  uint32_t size = 0, space = 0;
  uint32_t count = 0, reserved = 0;  // how many there is room for; answer: how many there are
  uint64_t ranges = 0;               // where they go
  uint64_t alignment = 0;            // answer
};
constexpr unsigned long kMapMemory = _IO(';', 0x85);
constexpr uint32_t kFixedAddress = 1, kWritable = 2, kReadable = 4;
struct MapMemory {
  uint32_t size = 0, flags = 0;
  uint32_t space = 0, reserved = 0;
  uint64_t memory = 0, length = 0, iova = 0;
};
constexpr unsigned long kUnmapMemory = _IO(';', 0x86);
struct UnmapMemory {
  uint32_t size = 0, space = 0;
  uint64_t iova = 0, length = 0;
};

}  // namespace cairn::nvme::iommufd
