#include "protocol/nvme/vfio.h"

#include <fmt/core.h>
#include <linux/vfio.h>
#include <sys/eventfd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <shared_mutex>
#include <utility>

#include "base/arith.h"
#include "base/error.h"

namespace cairn::nvme {
namespace {

// Of interrupts that are made to come; more are not used.
constexpr unsigned kMostVectors = 64;
// Registers of a controller take a few pages; what is larger is not one.
constexpr uint64_t kLeastRegisterBytes = 0x2000, kMostRegisterBytes = 1 << 26;

// Between what this processor wrote to memory and what it then writes to the device.
void order_stores() {
#if defined(__aarch64__)
  asm volatile("dmb osh" ::: "memory");
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

OwnFd make_eventfd() {
  const int fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) throw Error::system(errno, "eventfd");
  return OwnFd(fd);
}

class VfioDevice : public Device {
 public:
  VfioDevice(std::unique_ptr<VfioCalls> calls, std::unique_ptr<VfioIommu> iommu)
      : calls_(std::move(calls)), iommu_(std::move(iommu)), device_(iommu_->take_device()) {
    learn();
    enable_bus();
    map_registers();
    ask_for_notice();
  }
  ~VfioDevice() override { VfioDevice::close(); }

  uint64_t register_bytes() const override { return register_bytes_; }
  uint32_t read32(uint64_t offset) override { return *at<uint32_t>(offset); }
  uint64_t read64(uint64_t offset) override { return *at<uint64_t>(offset); }
  void write32(uint64_t offset, uint32_t value) override {
    order_stores();
    *at<uint32_t>(offset) = value;
  }
  void write64(uint64_t offset, uint64_t value) override {
    order_stores();
    *at<uint64_t>(offset) = value;
  }

  uint64_t map_bytes() const override { return map_bytes_; }
  std::vector<AddressRange> ranges() const override { return iommu_->ranges(); }
  void map(ByteSpan memory, uint64_t iova, bool writable) override {
    const std::shared_lock lock(closing_);
    if (!iommu_) throw Error(ErrorKind::kIo, "the device was closed");
    iommu_->map(memory, iova, writable);
  }
  void unmap(uint64_t iova, uint64_t length) noexcept override {
    const std::shared_lock lock(closing_);
    if (iommu_) iommu_->unmap(iova, length);
  }

  unsigned vectors() const override { return vectors_; }
  std::vector<int> enable_interrupts(unsigned count) override {
    for (unsigned i = 0; i < count; ++i) interrupts_.push_back(make_eventfd());
    set_interrupts(VFIO_PCI_MSIX_IRQ_INDEX, interrupts_);
    std::vector<int> descriptors;
    for (const OwnFd& one : interrupts_) descriptors.push_back(one.get());
    return descriptors;
  }
  std::optional<int> removal() const override {
    return notice_.empty() ? std::nullopt : std::optional<int>(notice_.front().get());
  }
  bool reset() override {
    return resettable_ && calls_->control(device_.get(), VFIO_DEVICE_RESET, nullptr) == 0;
  }

  void close() noexcept override {
    const std::unique_lock lock(closing_);
    if (!iommu_) return;
    if (!interrupts_.empty()) stop_interrupts(VFIO_PCI_MSIX_IRQ_INDEX);
    if (!notice_.empty()) stop_interrupts(VFIO_PCI_REQ_IRQ_INDEX);
    calls_->unmap(registers_, register_bytes_);
    // The kernel resets the function now, and then forgets the mappings with the container.
    device_ = OwnFd();
    iommu_.reset();
  }

 private:
  template <class T>
  volatile T* at(uint64_t offset) const {
    return reinterpret_cast<volatile T*>(registers_ + offset);
  }

  vfio_region_info region(uint32_t index) {
    vfio_region_info info = {};
    info.argsz = sizeof info;
    info.index = index;
    const int done = calls_->control(device_.get(), VFIO_DEVICE_GET_REGION_INFO, &info);
    if (done < 0) throw Error::system(-done, "a region of the device");
    return info;
  }
  vfio_irq_info interrupt(uint32_t index) {
    vfio_irq_info info = {};
    info.argsz = sizeof info;
    info.index = index;
    if (calls_->control(device_.get(), VFIO_DEVICE_GET_IRQ_INFO, &info) < 0) return {};
    return info;
  }

  void learn() {
    vfio_device_info info = {};
    info.argsz = sizeof info;
    const int done = calls_->control(device_.get(), VFIO_DEVICE_GET_INFO, &info);
    if (done < 0) throw Error::system(-done, "the device");
    if ((info.flags & VFIO_DEVICE_FLAGS_PCI) == 0 ||
        info.num_regions <= VFIO_PCI_CONFIG_REGION_INDEX)
      throw Error(ErrorKind::kUnsupported, "the device is no PCI device");
    resettable_ = (info.flags & VFIO_DEVICE_FLAGS_RESET) != 0;
    map_bytes_ = iommu_->page_bytes();
    if (info.num_irqs <= VFIO_PCI_MSIX_IRQ_INDEX) return;
    const vfio_irq_info msix = interrupt(VFIO_PCI_MSIX_IRQ_INDEX);
    if ((msix.flags & VFIO_IRQ_INFO_EVENTFD) != 0) vectors_ = std::min(msix.count, kMostVectors);
    has_notice_ = info.num_irqs > VFIO_PCI_REQ_IRQ_INDEX &&
                  (interrupt(VFIO_PCI_REQ_IRQ_INDEX).flags & VFIO_IRQ_INFO_EVENTFD) != 0;
  }

  // The device answers to its registers, and may reach memory.
  void enable_bus() {
    const vfio_region_info config = region(VFIO_PCI_CONFIG_REGION_INDEX);
    constexpr uint64_t kCommandAt = 4;
    constexpr uint16_t kMemoryAndMaster = 6;
    std::byte bytes[2] = {};
    const ssize_t got = calls_->read(device_.get(), bytes, config.offset + kCommandAt);
    if (got != sizeof bytes) throw Error(ErrorKind::kIo, "the device's configuration is not read");
    const auto command = static_cast<uint16_t>(load_le<uint16_t>(bytes, 0) | kMemoryAndMaster);
    store_le<uint16_t>(MutableByteSpan(bytes), 0, command);
    const ssize_t put = calls_->write(device_.get(), bytes, config.offset + kCommandAt);
    if (put != sizeof bytes)
      throw Error(ErrorKind::kIo, "the device's configuration is not written");
  }

  void map_registers() {
    const vfio_region_info bar = region(VFIO_PCI_BAR0_REGION_INDEX);
    constexpr uint32_t kNeeded =
        VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE | VFIO_REGION_INFO_FLAG_MMAP;
    if ((bar.flags & kNeeded) != kNeeded || bar.size < kLeastRegisterBytes ||
        bar.size > kMostRegisterBytes)
      throw Error(ErrorKind::kUnsupported, "the registers of the controller cannot be mapped");
    registers_ = calls_->map(device_.get(), bar.size, bar.offset);
    if (registers_ == nullptr)
      throw Error::system(errno, "the registers of the controller cannot be mapped");
    register_bytes_ = bar.size;
  }

  // Without it a removal waits until the device is closed.
  void ask_for_notice() {
    if (!has_notice_) return;
    notice_.push_back(make_eventfd());
    try {
      set_interrupts(VFIO_PCI_REQ_IRQ_INDEX, notice_);
    } catch (const Error&) {
      notice_.clear();
    }
  }

  void set_interrupts(uint32_t index, const std::vector<OwnFd>& descriptors) {
    std::vector<std::byte> bytes(sizeof(vfio_irq_set) + descriptors.size() * sizeof(int32_t));
    vfio_irq_set head = {};
    head.argsz = static_cast<uint32_t>(bytes.size());
    head.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    head.index = index;
    head.count = static_cast<uint32_t>(descriptors.size());
    std::memcpy(bytes.data(), &head, sizeof head);
    for (size_t i = 0; i < descriptors.size(); ++i) {
      const int32_t fd = descriptors[i].get();
      std::memcpy(bytes.data() + sizeof head + i * sizeof fd, &fd, sizeof fd);
    }
    const int done = calls_->control(device_.get(), VFIO_DEVICE_SET_IRQS, bytes.data());
    if (done < 0) throw Error::system(-done, "the interrupts of the device");
  }
  void stop_interrupts(uint32_t index) noexcept {
    vfio_irq_set head = {};
    head.argsz = sizeof head;
    head.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
    head.index = index;
    calls_->control(device_.get(), VFIO_DEVICE_SET_IRQS, &head);
  }

  const std::unique_ptr<VfioCalls> calls_;
  std::unique_ptr<VfioIommu> iommu_;  // null: closed
  OwnFd device_;
  std::shared_mutex closing_;
  std::byte* registers_ = nullptr;
  uint64_t register_bytes_ = 0;
  uint64_t map_bytes_ = 0;
  unsigned vectors_ = 0;
  bool resettable_ = false;
  bool has_notice_ = false;
  std::vector<OwnFd> interrupts_;
  std::vector<OwnFd> notice_;  // one, or none
};

// What keeps a process from driving FUNCTION, before anything of it is opened.
void check_function(const PciFunction& function) {
  const std::string& name = function.address.text();
  if (!function.controller)
    throw Error(ErrorKind::kInvalid, name + " is no NVMe controller")
        .hint("`cairn nvme list` shows those of this machine.");
  if (!function.group)
    throw Error(ErrorKind::kUnsupported,
                "no IOMMU is on for " + name + ": processes cannot drive it")
        .hint(kIommuHint);
  if (function.driver == kVfioDriver) return;
  Error error(ErrorKind::kLocked,
              function.driver.empty()
                  ? "no driver has the NVMe controller " + name + "; vfio-pci must have it"
                  : fmt::format("the driver {} has the NVMe controller {}; vfio-pci must have it",
                                function.driver, name));
  throw error.hint(fmt::format(
      "As root: modprobe vfio-pci; cairn nvme bind {}. Its disks are gone from this system then, "
      "until `cairn nvme unbind {}`.",
      name, name));
}

}  // namespace

std::unique_ptr<Device> open_vfio(std::unique_ptr<VfioCalls> calls, const SystemPaths& paths,
                                  const PciAddress& address) {
  const PciFunction function = look_at(paths, address);
  check_function(function);
  auto iommu = open_iommu(*calls, paths, function);
  return std::make_unique<VfioDevice>(std::move(calls), std::move(iommu));
}

}  // namespace cairn::nvme
