#include "operation/nvme.h"

#include "protocol/nvme/pci.h"

namespace cairn::operation {

std::vector<NvmeController> list_nvme(const Caller&) {
  std::vector<NvmeController> all;
  for (nvme::PciFunction& function : nvme::list_controllers({})) {
    const bool usable = function.driver == nvme::kVfioDriver && function.group;
    all.push_back({.address = function.address.text(),
                   .driver = std::move(function.driver),
                   .group = function.group.value_or(""),
                   .model = std::move(function.model),
                   .serial = std::move(function.serial),
                   .disks = std::move(function.disks),
                   .usable = usable});
  }
  return all;
}

void bind_nvme(const Caller& caller, const std::string& address) {
  caller.cancel.check();
  nvme::bind_to_vfio({}, nvme::PciAddress::parse(address));
}

void unbind_nvme(const Caller& caller, const std::string& address) {
  caller.cancel.check();
  nvme::give_to_kernel({}, nvme::PciAddress::parse(address));
}

}  // namespace cairn::operation
