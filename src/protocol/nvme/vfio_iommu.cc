#include "protocol/nvme/vfio_iommu.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "protocol/nvme/iommufd.h"

namespace cairn::nvme {

int VfioCalls::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  return fd < 0 ? -errno : fd;
}
int VfioCalls::control(int fd, unsigned long request, void* argument) {
  const int result = ::ioctl(fd, request, argument);
  return result < 0 ? -errno : result;
}
ssize_t VfioCalls::read(int fd, MutableByteSpan out, uint64_t offset) {
  const ssize_t got = ::pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
  return got < 0 ? -errno : got;
}
ssize_t VfioCalls::write(int fd, ByteSpan in, uint64_t offset) {
  const ssize_t put = ::pwrite(fd, in.data(), in.size(), static_cast<off_t>(offset));
  return put < 0 ? -errno : put;
}
std::byte* VfioCalls::map(int fd, uint64_t length, uint64_t offset) {
  void* const memory =
      ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(offset));
  return memory == MAP_FAILED ? nullptr : static_cast<std::byte*>(memory);
}
void VfioCalls::unmap(std::byte* memory, uint64_t length) { ::munmap(memory, length); }

namespace {

// What is assumed where the kernel does not say it.
constexpr AddressRange kUsualRange{0x10000, (uint64_t{1} << 39) - 1};
constexpr uint64_t kUsualPageBytes = 4096;
// Of one answer of the kernel.
constexpr uint32_t kMostInfoBytes = 64 << 10;

Error in_use(const PciFunction& function) {
  return Error(ErrorKind::kLocked, "the NVMe controller " + function.address.text() + " is in use")
      .hint("One program at a time can drive a controller, with one of its namespaces.");
}

Error not_allowed(const std::string& path) {
  return Error::system(EACCES, path)
      .hint(fmt::format("Give it to the user who runs this, as root: chown USER {}", path));
}

// What open() of a file of VFIO's answered with -ERROR.
Error cannot_open(const std::string& path, int error, const PciFunction& function) {
  if (error == EBUSY) return in_use(function);
  if (error == EACCES || error == EPERM) return not_allowed(path);
  if (error == ENOENT)
    return Error::system(error, path)
        .hint("Load VFIO, as root: modprobe vfio-pci; modprobe vfio_iommu_type1");
  return Error::system(error, path);
}

Error cannot_map(int error) {
  if (error == ENOMEM) return Error(ErrorKind::kNoMemory, "no more memory can be locked");
  if (error == ENOSPC) return Error(ErrorKind::kNoSpace, "no more memory can be mapped");
  return Error::system(error, "the memory cannot be mapped for the device");
}

// --- by container and group ---

class ContainerIommu : public VfioIommu {
 public:
  ContainerIommu(VfioCalls& calls, const SystemPaths& paths, const PciFunction& function,
                 OwnFd container)
      : calls_(calls), container_(std::move(container)) {
    check_container();
    open_group(paths, function);
    attach(function);
    learn();
    std::string name = function.address.text();
    const int device = calls_.control(group_.get(), VFIO_GROUP_GET_DEVICE_FD, name.data());
    if (device < 0) throw Error::system(-device, "the device " + name + " cannot be opened");
    device_ = OwnFd(device);
  }

  OwnFd take_device() override { return std::move(device_); }
  std::vector<AddressRange> ranges() const override { return ranges_; }
  uint64_t page_bytes() const override { return page_bytes_; }

  void map(ByteSpan memory, uint64_t iova, bool writable) override {
    vfio_iommu_type1_dma_map request = {};
    request.argsz = sizeof request;
    request.flags = VFIO_DMA_MAP_FLAG_READ | (writable ? VFIO_DMA_MAP_FLAG_WRITE : 0u);
    request.vaddr = reinterpret_cast<uintptr_t>(memory.data());
    request.iova = iova;
    request.size = memory.size();
    const int done = calls_.control(container_.get(), VFIO_IOMMU_MAP_DMA, &request);
    if (done < 0) throw cannot_map(-done);
  }
  void unmap(uint64_t iova, uint64_t length) noexcept override {
    vfio_iommu_type1_dma_unmap request = {};
    request.argsz = sizeof request;
    request.iova = iova;
    request.size = length;
    calls_.control(container_.get(), VFIO_IOMMU_UNMAP_DMA, &request);
  }

 private:
  int extension(unsigned long number) {
    // The argument is a number that is passed as a pointer.
    return calls_.control(container_.get(), VFIO_CHECK_EXTENSION, reinterpret_cast<void*>(number));
  }
  void check_container() {
    if (calls_.control(container_.get(), VFIO_GET_API_VERSION, nullptr) != VFIO_API_VERSION)
      throw Error(ErrorKind::kUnsupported, "the kernel has another version of VFIO");
    if (extension(VFIO_TYPE1v2_IOMMU) > 0)
      type_ = VFIO_TYPE1v2_IOMMU;
    else if (extension(VFIO_TYPE1_IOMMU) > 0)
      type_ = VFIO_TYPE1_IOMMU;
    else
      throw Error(ErrorKind::kUnsupported, "VFIO has no IOMMU of type 1 here")
          .hint("Load it, as root: modprobe vfio_iommu_type1");
  }
  void open_group(const SystemPaths& paths, const PciFunction& function) {
    const std::string path = paths.dev + "/vfio/" + *function.group;
    const int group = calls_.open(path);
    if (group < 0) throw cannot_open(path, -group, function);
    group_ = OwnFd(group);
    vfio_group_status status = {};
    status.argsz = sizeof status;
    const int done = calls_.control(group_.get(), VFIO_GROUP_GET_STATUS, &status);
    if (done < 0) throw Error::system(-done, path);
    if ((status.flags & VFIO_GROUP_FLAGS_VIABLE) != 0) return;
    Error error(ErrorKind::kLocked, fmt::format("other devices of the IOMMU group {} of {} are "
                                                "driven by the kernel",
                                                *function.group, function.address.text()));
    for (const PciFunction& other : members_of(paths, *function.group))
      if (!other.driver.empty() && other.driver != kVfioDriver)
        error.hint(
            fmt::format("{0} has the driver {1}. If it can be spared, as root: echo {0} > "
                        "/sys/bus/pci/devices/{0}/driver/unbind",
                        other.address.text(), other.driver));
    throw error;
  }
  void attach(const PciFunction& function) {
    int container = container_.get();
    int done = calls_.control(group_.get(), VFIO_GROUP_SET_CONTAINER, &container);
    if (done == -EBUSY) throw in_use(function);
    if (done < 0) throw Error::system(-done, "the IOMMU group cannot be used");
    done = calls_.control(container_.get(), VFIO_SET_IOMMU, reinterpret_cast<void*>(type_));
    if (done == -EPERM)
      throw Error::system(EPERM, "the IOMMU cannot be used")
          .hint(
              "Interrupts are not isolated on this machine: a device could raise any of them. "
              "Switch "
              "interrupt remapping on in the firmware's settings. Where the device is trusted, as "
              "root: modprobe -r vfio_iommu_type1; modprobe vfio_iommu_type1 "
              "allow_unsafe_interrupts=1");
    if (done < 0) throw Error::system(-done, "the IOMMU cannot be used");
  }
  void learn() {
    vfio_iommu_type1_info head = {};
    head.argsz = sizeof head;
    if (calls_.control(container_.get(), VFIO_IOMMU_GET_INFO, &head) < 0) return;
    std::vector<std::byte> bytes(
        std::clamp<size_t>(head.argsz, sizeof head, size_t{kMostInfoBytes}));
    head.argsz = static_cast<uint32_t>(bytes.size());
    std::memcpy(bytes.data(), &head, sizeof head);
    if (calls_.control(container_.get(), VFIO_IOMMU_GET_INFO, bytes.data()) < 0) return;
    std::memcpy(&head, bytes.data(), sizeof head);
    if ((head.flags & VFIO_IOMMU_INFO_PGSIZES) != 0 && head.iova_pgsizes != 0)
      page_bytes_ = std::max<uint64_t>(head.iova_pgsizes & ~(head.iova_pgsizes - 1),
                                       static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)));
    if ((head.flags & VFIO_IOMMU_INFO_CAPS) != 0) learn_ranges(bytes, head.cap_offset);
  }
  // A chain of records, each with the offset of the next.
  void learn_ranges(ByteSpan bytes, uint32_t offset) {
    std::vector<AddressRange> found;
    for (unsigned n = 0; offset != 0 && n < 64; ++n) {
      vfio_info_cap_header header = {};
      if (bytes.size() < sizeof header || offset > bytes.size() - sizeof header) return;
      std::memcpy(&header, bytes.data() + offset, sizeof header);
      if (header.id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) {
        const size_t first = offset + sizeof(vfio_iommu_type1_info_cap_iova_range);
        const size_t count_at = offset + offsetof(vfio_iommu_type1_info_cap_iova_range, nr_iovas);
        uint32_t count = 0;
        if (first > bytes.size()) return;
        std::memcpy(&count, bytes.data() + count_at, sizeof count);
        if (count > (bytes.size() - first) / sizeof(vfio_iova_range)) return;
        for (uint32_t i = 0; i < count; ++i) {
          vfio_iova_range range = {};
          std::memcpy(&range, bytes.data() + first + i * sizeof range, sizeof range);
          found.push_back({range.start, range.end});
        }
      }
      offset = header.next;
    }
    if (!found.empty()) ranges_ = std::move(found);
  }

  VfioCalls& calls_;
  OwnFd container_, group_, device_;
  unsigned long type_ = 0;
  std::vector<AddressRange> ranges_{kUsualRange};
  uint64_t page_bytes_ = kUsualPageBytes;
};

// --- by iommufd ---

class FileIommu : public VfioIommu {
 public:
  FileIommu(VfioCalls& calls, const SystemPaths& paths, const PciFunction& function, OwnFd iommu)
      : calls_(calls), iommu_(std::move(iommu)) {
    const std::string path = device_path(paths, function);
    const int device = calls_.open(path);
    if (device < 0) throw cannot_open(path, -device, function);
    device_ = OwnFd(device);
    iommufd::BindDevice bind = {.argsz = sizeof bind, .iommufd = iommu_.get()};
    int done = calls_.control(device_.get(), iommufd::kBindDevice, &bind);
    if (done == -EBUSY) throw in_use(function);
    if (done < 0) throw Error::system(-done, path);
    iommufd::AllocateSpace space = {.size = sizeof space};
    done = calls_.control(iommu_.get(), iommufd::kAllocateSpace, &space);
    if (done < 0) throw Error::system(-done, "the IOMMU cannot be used");
    space_ = space.space;
    iommufd::AttachDevice attach = {.argsz = sizeof attach, .space = space_};
    done = calls_.control(device_.get(), iommufd::kAttachDevice, &attach);
    if (done < 0) throw Error::system(-done, "the IOMMU cannot be used");
    learn_ranges();
  }

  OwnFd take_device() override { return std::move(device_); }
  std::vector<AddressRange> ranges() const override { return ranges_; }
  uint64_t page_bytes() const override { return page_bytes_; }

  void map(ByteSpan memory, uint64_t iova, bool writable) override {
    iommufd::MapMemory request = {
        .size = sizeof request,
        .flags = iommufd::kFixedAddress | iommufd::kReadable | (writable ? iommufd::kWritable : 0u),
        .space = space_,
        .memory = reinterpret_cast<uintptr_t>(memory.data()),
        .length = memory.size(),
        .iova = iova};
    const int done = calls_.control(iommu_.get(), iommufd::kMapMemory, &request);
    if (done < 0) throw cannot_map(-done);
  }
  void unmap(uint64_t iova, uint64_t length) noexcept override {
    iommufd::UnmapMemory request = {
        .size = sizeof request, .space = space_, .iova = iova, .length = length};
    calls_.control(iommu_.get(), iommufd::kUnmapMemory, &request);
  }

 private:
  static std::string device_path(const SystemPaths& paths, const PciFunction& function) {
    const std::string folder =
        paths.sys + "/bus/pci/devices/" + function.address.text() + "/vfio-dev";
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(folder, error))
      return paths.dev + "/vfio/devices/" + entry.path().filename().string();
    throw Error(ErrorKind::kUnsupported,
                "the kernel has neither containers nor device files of VFIO")
        .hint("Load VFIO, as root: modprobe vfio-pci; modprobe vfio_iommu_type1");
  }
  void learn_ranges() {
    std::vector<iommufd::AddressRange> found(64);
    iommufd::AddressRanges request = {.size = sizeof request,
                                      .space = space_,
                                      .count = static_cast<uint32_t>(found.size()),
                                      .ranges = reinterpret_cast<uintptr_t>(found.data())};
    if (calls_.control(iommu_.get(), iommufd::kAddressRanges, &request) < 0) return;
    if (request.count > found.size()) return;
    ranges_.clear();
    for (uint32_t i = 0; i < request.count; ++i) ranges_.push_back({found[i].first, found[i].last});
    page_bytes_ =
        std::max({page_bytes_, request.alignment, static_cast<uint64_t>(::sysconf(_SC_PAGESIZE))});
  }

  VfioCalls& calls_;
  OwnFd iommu_, device_;
  uint32_t space_ = 0;
  std::vector<AddressRange> ranges_{kUsualRange};
  uint64_t page_bytes_ = kUsualPageBytes;
};

}  // namespace

std::unique_ptr<VfioIommu> open_iommu(VfioCalls& calls, const SystemPaths& paths,
                                      const PciFunction& function) {
  const std::string container_path = paths.dev + "/vfio/vfio";
  OwnFd container(calls.open(container_path));
  if (container.get() >= 0)
    return std::make_unique<ContainerIommu>(calls, paths, function, std::move(container));
  const int error = -container.release();
  const int iommu = error == ENOENT ? calls.open(paths.dev + "/iommu") : -error;
  if (iommu < 0) throw cannot_open(container_path, error, function);
  return std::make_unique<FileIommu>(calls, paths, function, OwnFd(iommu));
}

}  // namespace cairn::nvme
