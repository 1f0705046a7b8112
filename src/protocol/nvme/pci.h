#pragma once

#include <optional>
#include <string>
#include <vector>

#include "protocol/nvme/address.h"

namespace cairn::nvme {

// Where the kernel shows its devices.
struct SystemPaths {
  std::string sys = "/sys", dev = "/dev";
};

// A PCI function, as the kernel shows it.
struct PciFunction {
  PciAddress address;
  std::string driver = {};                // empty: none
  std::optional<std::string> group = {};  // of the IOMMU; nothing where there is none
  bool controller = false;                // an NVMe controller
  std::string model = {}, serial = {};    // while the kernel's nvme driver has it
  std::vector<std::string> disks = {};    // names of its namespaces as block devices of this system
};

// Throws kNotFound when there is no such function.
PciFunction look_at(const SystemPaths& paths, const PciAddress& address);
// All NVMe controllers, by address.
std::vector<PciFunction> list_controllers(const SystemPaths& paths);
// The other functions of an IOMMU group, which go with it.
std::vector<PciFunction> members_of(const SystemPaths& paths, const std::string& group);

// Makes vfio-pci the driver of the controller. Throws kLocked when a disk of it is in use here,
// kDenied without the rights, kUnsupported without an IOMMU or the driver. Nothing happens when it
// is already so. Blocks.
void bind_to_vfio(const SystemPaths& paths, const PciAddress& address);
// Gives the controller back to the driver that the kernel chooses. Throws as above. Blocks.
void give_to_kernel(const SystemPaths& paths, const PciAddress& address);

// The name of VFIO's driver for PCI functions.
constexpr std::string_view kVfioDriver = "vfio-pci";

// What to do to make an IOMMU work.
extern const char* const kIommuHint;

}  // namespace cairn::nvme
