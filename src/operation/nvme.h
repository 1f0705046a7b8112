#pragma once

#include <string>
#include <vector>

#include "operation/caller.h"

namespace cairn::operation {

// An NVMe controller of this machine.
struct NvmeController {
  std::string address;             // DOMAIN:BUS:SLOT.FUNCTION
  std::string driver;              // empty: none
  std::string group;               // of the IOMMU; empty: there is none
  std::string model, serial;       // while the kernel's own driver has it
  std::vector<std::string> disks;  // names of its namespaces as block devices, without "/dev/"
  bool usable = false;             // `nvme://` reaches it
};

// All of them, by address.
std::vector<NvmeController> list_nvme(const Caller& caller);
// Takes the controller at ADDRESS from the kernel, so that `nvme://` reaches it, or gives it back.
// Throws where it is in use, and where something that it takes is missing.
void bind_nvme(const Caller& caller, const std::string& address);
void unbind_nvme(const Caller& caller, const std::string& address);

}  // namespace cairn::operation
