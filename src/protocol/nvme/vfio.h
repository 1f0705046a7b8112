#pragma once

#include <memory>

#include "protocol/nvme/device.h"
#include "protocol/nvme/pci.h"
#include "protocol/nvme/vfio_iommu.h"

namespace cairn::nvme {

// Opens the NVMe controller at ADDRESS, which nobody else may use until it is closed. Throws
// kNotFound when there is none, kUnsupported, kDenied or kLocked with what to do where something
// that it takes is missing: an IOMMU, the driver, rights, or the other devices of its group.
// Blocks.
std::unique_ptr<Device> open_vfio(std::unique_ptr<VfioCalls> calls, const SystemPaths& paths,
                                  const PciAddress& address);

}  // namespace cairn::nvme
