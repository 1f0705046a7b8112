#include "protocol/nvme/pci.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/own_fd.h"

namespace cairn::nvme {

const char* const kIommuHint =
    "Switch the IOMMU on (VT-d or AMD-Vi) in the firmware's settings and, with an Intel processor, "
    "boot Linux with intel_iommu=on.";

namespace {

namespace fs = std::filesystem;

std::string pci_folder(const SystemPaths& paths) { return paths.sys + "/bus/pci/"; }
std::string folder_of(const SystemPaths& paths, const PciAddress& address) {
  return pci_folder(paths) + "devices/" + address.text();
}

// The first line of a file, without spaces at its end; empty when there is none.
std::string line_of(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  const size_t end = line.find_last_not_of(" \t\n");
  line.resize(end == std::string::npos ? 0 : end + 1);
  return line;
}

std::optional<std::string> link_name(const std::string& path) {
  std::error_code error;
  const fs::path target = fs::read_symlink(path, error);
  if (error) return std::nullopt;
  return target.filename().string();
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error))
    names.push_back(entry->path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

// "nvme0n1", also of "nvme0c1n1", which is one of its paths. Empty for other names.
std::string disk_name(const std::string& controller, const std::string& name) {
  if (!name.starts_with(controller)) return {};
  const std::string rest = name.substr(controller.size());
  const size_t number = rest.find('n');
  if (number == std::string::npos || (rest[0] != 'n' && rest[0] != 'c')) return {};
  return controller + rest.substr(number);
}

void add_kernel_facts(const SystemPaths& paths, PciFunction& function) {
  const std::string folder = folder_of(paths, function.address) + "/nvme";
  for (const std::string& controller : names_in(folder)) {
    function.model = line_of(folder + "/" + controller + "/model");
    function.serial = line_of(folder + "/" + controller + "/serial");
    for (const std::string& name : names_in(folder + "/" + controller))
      if (std::string disk = disk_name(controller, name); !disk.empty())
        function.disks.push_back(std::move(disk));
  }
}

PciFunction described(const SystemPaths& paths, const PciAddress& address) {
  const std::string folder = folder_of(paths, address);
  PciFunction function{.address = address};
  function.driver = link_name(folder + "/driver").value_or("");
  function.group = link_name(folder + "/iommu_group");
  // Mass storage, non-volatile memory, with the NVMe interface for I/O.
  function.controller = line_of(folder + "/class") == "0x010802";
  if (function.controller) add_kernel_facts(paths, function);
  return function;
}

// Writes TEXT to a file of the kernel that makes it do something.
void tell(const std::string& path, const std::string& text) {
  const OwnFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  int error = fd ? 0 : errno;
  if (error == 0 && ::write(fd.get(), text.data(), text.size()) < 0) error = errno;
  if (error == 0) return;
  Error failure = Error::system(error, path);
  if (error == EACCES || error == EPERM) failure.hint("Run the command as root.");
  throw failure;
}

PciFunction controller_at(const SystemPaths& paths, const PciAddress& address) {
  PciFunction function = look_at(paths, address);
  if (!function.controller)
    throw Error(ErrorKind::kInvalid, address.text() + " is no NVMe controller")
        .hint("`cairn nvme list` shows those of this machine.");
  return function;
}

// A disk that is mounted, or part of a volume, would be lost under those who use it.
void refuse_used(const SystemPaths& paths, const PciFunction& function) {
  for (const std::string& disk : function.disks) {
    const std::string path = paths.dev + "/" + disk;
    const OwnFd fd(::open(path.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
    if (!fd && errno == EBUSY)
      throw Error(ErrorKind::kLocked, path + " is in use by this system")
          .hint("Unmount its file systems first (`lsblk " + path +
                "` shows them), and end what "
                "uses it as swap space or in a volume group.");
  }
}

void change_driver(const SystemPaths& paths, const PciFunction& function,
                   const std::string& chosen) {
  const std::string folder = folder_of(paths, function.address);
  tell(folder + "/driver_override", chosen + "\n");
  if (!function.driver.empty()) tell(folder + "/driver/unbind", function.address.text());
  tell(pci_folder(paths) + "drivers_probe", function.address.text());
}

}  // namespace

PciFunction look_at(const SystemPaths& paths, const PciAddress& address) {
  std::error_code error;
  if (!fs::exists(folder_of(paths, address), error))
    throw Error(ErrorKind::kNotFound, "there is no PCI device " + address.text())
        .hint("`cairn nvme list` shows the NVMe controllers of this machine.");
  return described(paths, address);
}

std::vector<PciFunction> list_controllers(const SystemPaths& paths) {
  std::vector<PciFunction> found;
  for (const std::string& name : names_in(pci_folder(paths) + "devices"))
    if (const auto address = PciAddress::find(name))
      if (PciFunction function = described(paths, *address); function.controller)
        found.push_back(std::move(function));
  return found;
}

std::vector<PciFunction> members_of(const SystemPaths& paths, const std::string& group) {
  std::vector<PciFunction> found;
  for (const std::string& name : names_in(paths.sys + "/kernel/iommu_groups/" + group + "/devices"))
    if (const auto address = PciAddress::find(name)) found.push_back(described(paths, *address));
  return found;
}

void bind_to_vfio(const SystemPaths& paths, const PciAddress& address) {
  const PciFunction function = controller_at(paths, address);
  if (function.driver == kVfioDriver) return;
  if (!function.group)
    throw Error(ErrorKind::kUnsupported,
                "no IOMMU is on for " + address.text() + ": processes cannot drive it")
        .hint(kIommuHint);
  refuse_used(paths, function);
  std::error_code error;
  if (!fs::exists(pci_folder(paths) + "drivers/" + std::string(kVfioDriver), error))
    throw Error(ErrorKind::kUnsupported, "the kernel's driver vfio-pci is not loaded")
        .hint("As root: modprobe vfio-pci");
  change_driver(paths, function, std::string(kVfioDriver));
  if (look_at(paths, address).driver != kVfioDriver)
    throw Error(ErrorKind::kIo, "vfio-pci did not take " + address.text())
        .hint("The kernel's log says why: dmesg | tail");
}

void give_to_kernel(const SystemPaths& paths, const PciAddress& address) {
  const PciFunction function = controller_at(paths, address);
  if (function.driver == kVfioDriver || function.driver.empty()) change_driver(paths, function, "");
}

}  // namespace cairn::nvme
