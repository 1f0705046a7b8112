#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/own_fd.h"
#include "protocol/nvme/device.h"
#include "protocol/nvme/pci.h"

namespace cairn::nvme {

// The calls of the kernel that VFIO consists of: an interface, so that tests can take its place.
// All but map() give the result, or -errno.
class VfioCalls {
 public:
  virtual ~VfioCalls() = default;
  virtual int open(const std::string& path);
  virtual int control(int fd, unsigned long request, void* argument);
  virtual ssize_t read(int fd, MutableByteSpan out, uint64_t offset);
  virtual ssize_t write(int fd, ByteSpan in, uint64_t offset);
  // Null on failure.
  virtual std::byte* map(int fd, uint64_t length, uint64_t offset);
  virtual void unmap(std::byte* memory, uint64_t length);
};

// What translates the addresses of a device for this process.
class VfioIommu {
 public:
  virtual ~VfioIommu() = default;
  // The device itself, which this IOMMU serves; once.
  virtual OwnFd take_device() = 0;
  virtual std::vector<AddressRange> ranges() const = 0;
  virtual uint64_t page_bytes() const = 0;
  // Throws the system's error; kNoMemory and kNoSpace as Device::map() says.
  virtual void map(ByteSpan memory, uint64_t iova, bool writable) = 0;
  virtual void unmap(uint64_t iova, uint64_t length) noexcept = 0;
};

// By the container and the group of FUNCTION or, where the kernel has no containers, by the
// descriptor of the device alone. Throws with what to do when something that it takes is missing.
std::unique_ptr<VfioIommu> open_iommu(VfioCalls& calls, const SystemPaths& paths,
                                      const PciFunction& function);

}  // namespace cairn::nvme
