// What keeps a process from driving an NVMe controller, and VFIO itself, with a kernel of the
// test's own.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/vfio.h>
#include <sys/mman.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "protocol/nvme/iommufd.h"
#include "protocol/nvme/vfio.h"
#include "support.h"

namespace cairn::nvme {
namespace {

namespace fs = std::filesystem;

const char* const kName = "0000:06:0d.0";

// A tree like /sys and /dev, in which controllers and what they need are put.
class FakeSystem {
 public:
  FakeSystem() {
    fs::create_directories(sys() / "bus/pci/devices");
    fs::create_directories(sys() / "bus/pci/drivers");
    write(sys() / "bus/pci/drivers_probe", "");
    fs::create_directories(dev() / "vfio");
  }
  SystemPaths paths() const { return {.sys = sys(), .dev = dev()}; }
  fs::path sys() const { return folder_.file("sys"); }
  fs::path dev() const { return folder_.file("dev"); }
  fs::path device(const std::string& name = kName) const {
    return sys() / "bus/pci/devices" / name;
  }

  void add(const std::string& name, const std::string& class_code, const std::string& driver) {
    fs::create_directories(device(name));
    write(device(name) / "class", class_code + "\n");
    write(device(name) / "driver_override", "");
    if (!driver.empty()) set_driver(name, driver);
  }
  void set_driver(const std::string& name, const std::string& driver) {
    add_driver(driver);
    fs::remove(device(name) / "driver");
    fs::create_directory_symlink(sys() / "bus/pci/drivers" / driver, device(name) / "driver");
  }
  void add_driver(const std::string& driver) {
    fs::create_directories(sys() / "bus/pci/drivers" / driver);
    write(sys() / "bus/pci/drivers" / driver / "unbind", "");
  }
  void add_group(const std::string& name, const std::string& group) {
    const fs::path there = sys() / "kernel/iommu_groups" / group;
    fs::create_directories(there / "devices");
    fs::create_directory_symlink(there, device(name) / "iommu_group");
    fs::create_directory_symlink(device(name), there / "devices" / name);
  }
  static void write(const fs::path& path, const std::string& text) { std::ofstream(path) << text; }
  static std::string read(const fs::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  testing_support::Folder folder_;
};

struct Failure {
  std::string message, hints;
  ErrorKind kind = ErrorKind::kForked;
};
template <class F>
Failure failure_of(F function) {
  try {
    function();
  } catch (const Error& error) {
    Failure failure{error.message(), {}, error.kind()};
    for (const Hint& hint : error.hints()) failure.hints += hint.text + "\n";
    return failure;
  }
  return {};
}

// The calls of VFIO, whose answers the test chooses.
struct FakeKernel {
  std::map<unsigned long, int> answers;  // by request, instead of success
  std::map<std::string, int> opens;      // by name, instead of a descriptor
  bool viable = true;
  uint64_t bar_bytes = 0x4000;
  unsigned vectors = 3;
  uint16_t command = 0x400;
  std::map<uint64_t, uint64_t> maps;
  std::vector<std::string> opened;
  unsigned interrupts = 0, unmapped_bars = 0, resets = 0;
};

class FakeCalls : public VfioCalls {
 public:
  explicit FakeCalls(FakeKernel& kernel) : kernel_(kernel) {}

  int open(const std::string& path) override {
    const std::string name = fs::path(path).filename();
    if (const auto found = kernel_.opens.find(name); found != kernel_.opens.end())
      return found->second;
    kernel_.opened.push_back(name);
    return ::open("/dev/null", O_RDWR | O_CLOEXEC);
  }
  int control(int, unsigned long request, void* argument) override {
    if (const auto found = kernel_.answers.find(request); found != kernel_.answers.end())
      return found->second;
    switch (request) {
      case VFIO_CHECK_EXTENSION:
        return 1;
      case VFIO_GROUP_GET_STATUS:
        static_cast<vfio_group_status*>(argument)->flags =
            kernel_.viable ? VFIO_GROUP_FLAGS_VIABLE : 0;
        return 0;
      case VFIO_GROUP_GET_DEVICE_FD:
        EXPECT_STREQ(static_cast<const char*>(argument), kName);
        return ::open("/dev/null", O_RDWR | O_CLOEXEC);
      case VFIO_IOMMU_GET_INFO:
        tell_ranges(argument);
        return 0;
      case VFIO_IOMMU_MAP_DMA: {
        const auto& map = *static_cast<const vfio_iommu_type1_dma_map*>(argument);
        kernel_.maps[map.iova] = map.size;
        return 0;
      }
      case VFIO_IOMMU_UNMAP_DMA:
        kernel_.maps.erase(static_cast<const vfio_iommu_type1_dma_unmap*>(argument)->iova);
        return 0;
      case VFIO_DEVICE_RESET:
        ++kernel_.resets;
        return 0;
      default:
        return control_device(request, argument);
    }
  }
  ssize_t read(int, MutableByteSpan out, uint64_t) override {
    store_le<uint16_t>(out, 0, kernel_.command);
    return static_cast<ssize_t>(out.size());
  }
  ssize_t write(int, ByteSpan in, uint64_t offset) override {
    EXPECT_EQ(offset, 0x7000000U + 4);
    kernel_.command = load_le<uint16_t>(in, 0);
    return static_cast<ssize_t>(in.size());
  }
  std::byte* map(int, uint64_t length, uint64_t) override {
    void* const memory =
        ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return static_cast<std::byte*>(memory);
  }
  void unmap(std::byte* memory, uint64_t length) override {
    ++kernel_.unmapped_bars;
    VfioCalls::unmap(memory, length);
  }

 private:
  int control_device(unsigned long request, void* argument) {
    switch (request) {
      case VFIO_DEVICE_GET_INFO: {
        auto& info = *static_cast<vfio_device_info*>(argument);
        info.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
        info.num_regions = 9;
        info.num_irqs = 5;
        return 0;
      }
      case VFIO_DEVICE_GET_REGION_INFO: {
        auto& info = *static_cast<vfio_region_info*>(argument);
        info.flags =
            VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE | VFIO_REGION_INFO_FLAG_MMAP;
        info.size = kernel_.bar_bytes;
        info.offset = uint64_t{info.index} << 24;
        return 0;
      }
      case VFIO_DEVICE_GET_IRQ_INFO: {
        auto& info = *static_cast<vfio_irq_info*>(argument);
        info.flags = VFIO_IRQ_INFO_EVENTFD;
        info.count = info.index == VFIO_PCI_MSIX_IRQ_INDEX ? kernel_.vectors : 1;
        return 0;
      }
      case VFIO_DEVICE_SET_IRQS: {
        const auto& set = *static_cast<const vfio_irq_set*>(argument);
        if (set.index == VFIO_PCI_MSIX_IRQ_INDEX) kernel_.interrupts = set.count;
        return 0;
      }
      case iommufd::kAllocateSpace:
        static_cast<iommufd::AllocateSpace*>(argument)->space = 5;
        return 0;
      case iommufd::kAddressRanges: {
        auto& ranges = *static_cast<iommufd::AddressRanges*>(argument);
        EXPECT_EQ(ranges.space, 5U);
        ranges.count = 1;
        ranges.alignment = 4096;
        auto* const first = reinterpret_cast<iommufd::AddressRange*>(ranges.ranges);
        *first = {0x100000, 0xffffff};
        return 0;
      }
      case iommufd::kMapMemory: {
        const auto& map = *static_cast<const iommufd::MapMemory*>(argument);
        EXPECT_EQ(map.space, 5U);
        kernel_.maps[map.iova] = map.length;
        return 0;
      }
      case iommufd::kUnmapMemory:
        kernel_.maps.erase(static_cast<const iommufd::UnmapMemory*>(argument)->iova);
        return 0;
      default:
        return 0;
    }
  }
  // Two ranges, in a record behind another one.
  static void tell_ranges(void* argument) {
    auto& info = *static_cast<vfio_iommu_type1_info*>(argument);
    constexpr uint32_t kFirst = sizeof(vfio_iommu_type1_info);
    constexpr uint32_t kSecond = kFirst + 16, kBytes = kSecond + 16 + 2 * 16;
    const uint32_t room = info.argsz;
    info.argsz = kBytes;
    info.flags = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS;
    info.iova_pgsizes = 0x40201000;
    if (room < kBytes) return;
    info.cap_offset = kFirst;
    auto* const bytes = static_cast<std::byte*>(argument);
    const vfio_info_cap_header other = {.id = 3, .version = 1, .next = kSecond};
    std::memcpy(bytes + kFirst, &other, sizeof other);
    vfio_iommu_type1_info_cap_iova_range ranges = {};
    ranges.header = {.id = VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, .version = 1, .next = 0};
    ranges.nr_iovas = 2;
    std::memcpy(bytes + kSecond, &ranges, sizeof ranges);
    const vfio_iova_range list[] = {{0, 0xfedfffff}, {0xfef00000, 0xffffffffffff}};
    std::memcpy(bytes + kSecond + sizeof ranges, list, sizeof list);
  }

  FakeKernel& kernel_;
};

class NvmeVfio : public ::testing::Test {
 protected:
  // A controller that everything is fine with.
  void add_controller() {
    system.add(kName, "0x010802", "vfio-pci");
    system.add_group(kName, "7");
  }
  std::unique_ptr<Device> open() {
    return open_vfio(std::make_unique<FakeCalls>(kernel), system.paths(), PciAddress::parse(kName));
  }
  void refused(ErrorKind kind, const std::string& message, const std::string& hint) {
    const Failure failure = failure_of([&] { open(); });
    EXPECT_EQ(failure.kind, kind) << failure.message;
    EXPECT_NE(failure.message.find(message), std::string::npos) << failure.message;
    EXPECT_NE(failure.hints.find(hint), std::string::npos) << failure.hints;
  }
  FakeSystem system;
  FakeKernel kernel;
};

TEST_F(NvmeVfio, OpensAndCloses) {
  add_controller();
  const auto device = open();
  EXPECT_EQ(kernel.opened, (std::vector<std::string>{"vfio", "7"}));
  EXPECT_EQ(kernel.command, 0x406);  // the other bits stay
  EXPECT_EQ(device->register_bytes(), 0x4000U);
  EXPECT_EQ(device->map_bytes(), 4096U);
  ASSERT_EQ(device->ranges().size(), 2U);
  EXPECT_EQ(device->ranges()[1].first, 0xfef00000U);
  EXPECT_EQ(device->ranges()[1].last, 0xffffffffffffU);
  EXPECT_EQ(device->vectors(), 3U);
  EXPECT_EQ(device->enable_interrupts(2).size(), 2U);
  EXPECT_EQ(kernel.interrupts, 2U);
  EXPECT_TRUE(device->removal().has_value());
  EXPECT_TRUE(device->reset());
  device->write64(0x28, 0x1122334455667788);
  EXPECT_EQ(device->read32(0x2c), 0x11223344U);
  std::vector<std::byte> memory(8192);
  device->map(memory, 0x20000, true);
  EXPECT_EQ(kernel.maps, (std::map<uint64_t, uint64_t>{{0x20000, 8192}}));
  device->unmap(0x20000, 8192);
  EXPECT_TRUE(kernel.maps.empty());
  device->close();
  EXPECT_EQ(kernel.interrupts, 0U);
  EXPECT_EQ(kernel.unmapped_bars, 1U);
  EXPECT_THROW(device->map(memory, 0x20000, true), Error);
  device->unmap(0x20000, 8192);
  device->close();
  EXPECT_EQ(kernel.unmapped_bars, 1U);
}

TEST_F(NvmeVfio, OpensByIommufdWhereThereIsNoContainer) {
  add_controller();
  fs::create_directories(system.device() / "vfio-dev/vfio3");
  kernel.opens["vfio"] = -ENOENT;
  const auto device = open();
  EXPECT_EQ(kernel.opened, (std::vector<std::string>{"iommu", "vfio3"}));
  ASSERT_EQ(device->ranges().size(), 1U);
  EXPECT_EQ(device->ranges()[0].first, 0x100000U);
  std::vector<std::byte> memory(4096);
  device->map(memory, 0x200000, false);
  EXPECT_EQ(kernel.maps.size(), 1U);
  device->unmap(0x200000, 4096);
  EXPECT_TRUE(kernel.maps.empty());
  device->close();
  kernel.answers[iommufd::kBindDevice] = -EBUSY;
  refused(ErrorKind::kLocked, "is in use", "One program");
}

TEST_F(NvmeVfio, WhatIsMissingIsSaid) {
  refused(ErrorKind::kNotFound, "there is no PCI device 0000:06:0d.0", "cairn nvme list");
  system.add(kName, "0x010601", "ahci");
  refused(ErrorKind::kInvalid, "is no NVMe controller", "cairn nvme list");
  FakeSystem::write(system.device() / "class", "0x010802\n");
  refused(ErrorKind::kUnsupported, "no IOMMU is on for 0000:06:0d.0", "intel_iommu=on");
  system.add_group(kName, "7");
  refused(ErrorKind::kLocked, "the driver ahci has", "cairn nvme bind 0000:06:0d.0");
  fs::remove(system.device() / "driver");
  refused(ErrorKind::kLocked, "no driver has", "cairn nvme bind 0000:06:0d.0");
  system.set_driver(kName, "vfio-pci");
  kernel.opens["vfio"] = -ENOENT;
  kernel.opens["iommu"] = -ENOENT;
  refused(ErrorKind::kNotFound, "/vfio/vfio", "modprobe vfio-pci");
  kernel.opens["vfio"] = -EACCES;
  refused(ErrorKind::kDenied, "/vfio/vfio", "chown USER");
  kernel.opens.clear();
  kernel.opens["7"] = -EACCES;
  refused(ErrorKind::kDenied, "/vfio/7", "chown USER");
  kernel.opens["7"] = -EBUSY;
  refused(ErrorKind::kLocked, "is in use", "One program");
  kernel.opens.clear();
  kernel.viable = false;
  system.add("0000:06:0d.1", "0x020000", "e1000e");
  system.add_group("0000:06:0d.1", "7");
  refused(ErrorKind::kLocked, "other devices of the IOMMU group 7",
          "0000:06:0d.1 has the driver e1000e");
  kernel.viable = true;
  kernel.answers[VFIO_SET_IOMMU] = -EPERM;
  refused(ErrorKind::kDenied, "the IOMMU cannot be used", "allow_unsafe_interrupts=1");
  kernel.answers.clear();
  kernel.answers[VFIO_CHECK_EXTENSION] = 0;
  refused(ErrorKind::kUnsupported, "no IOMMU of type 1", "modprobe vfio_iommu_type1");
  kernel.answers.clear();
  kernel.bar_bytes = 0x1000;
  refused(ErrorKind::kUnsupported, "the registers of the controller cannot be mapped", "");
  kernel.bar_bytes = 0x4000;
  EXPECT_NO_THROW(open());
}

TEST_F(NvmeVfio, MappingsThatFailSayWhy) {
  add_controller();
  const auto device = open();
  std::vector<std::byte> memory(4096);
  const std::pair<int, ErrorKind> kinds[] = {{-ENOMEM, ErrorKind::kNoMemory},
                                             {-ENOSPC, ErrorKind::kNoSpace},
                                             {-EINVAL, ErrorKind::kInvalid}};
  for (const auto& [answer, kind] : kinds) {
    kernel.answers[VFIO_IOMMU_MAP_DMA] = answer;
    EXPECT_EQ(failure_of([&] { device->map(memory, 0x20000, true); }).kind, kind);
  }
}

// --- which controllers there are, and who drives them ---

TEST_F(NvmeVfio, ControllersAreListed) {
  system.add(kName, "0x010802", "nvme");
  system.add_group(kName, "7");
  system.add("0000:00:1f.2", "0x010601", "ahci");
  const fs::path kernels = system.device() / "nvme/nvme0";
  fs::create_directories(kernels / "nvme0c0n1");
  fs::create_directories(kernels / "nvme0n2");
  fs::create_directories(kernels / "power");
  FakeSystem::write(kernels / "model", "A model   \n");
  FakeSystem::write(kernels / "serial", "123\n");
  const auto all = list_controllers(system.paths());
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0].address.text(), kName);
  EXPECT_EQ(all[0].driver, "nvme");
  EXPECT_EQ(all[0].group, "7");
  EXPECT_EQ(all[0].model, "A model");
  EXPECT_EQ(all[0].serial, "123");
  EXPECT_EQ(all[0].disks, (std::vector<std::string>{"nvme0n1", "nvme0n2"}));
}

TEST_F(NvmeVfio, BindingTellsTheKernel) {
  const auto bind = [&] { bind_to_vfio(system.paths(), PciAddress::parse(kName)); };
  EXPECT_NE(failure_of(bind).message.find("there is no PCI device"), std::string::npos);
  system.add(kName, "0x010802", "nvme");
  EXPECT_NE(failure_of(bind).hints.find("intel_iommu=on"), std::string::npos);
  system.add_group(kName, "7");
  EXPECT_NE(failure_of(bind).hints.find("modprobe vfio-pci"), std::string::npos);
  system.add_driver("vfio-pci");
  // This kernel does nothing.
  EXPECT_NE(failure_of(bind).message.find("vfio-pci did not take 0000:06:0d.0"), std::string::npos);
  EXPECT_EQ(FakeSystem::read(system.device() / "driver_override"), "vfio-pci\n");
  EXPECT_EQ(FakeSystem::read(system.device() / "driver/unbind"), kName);
  EXPECT_EQ(FakeSystem::read(system.sys() / "bus/pci/drivers_probe"), kName);
  system.set_driver(kName, "vfio-pci");
  bind();
  FakeSystem::write(system.device() / "driver_override", "");
  give_to_kernel(system.paths(), PciAddress::parse(kName));
  EXPECT_EQ(FakeSystem::read(system.device() / "driver_override"), "\n");
  EXPECT_EQ(FakeSystem::read(system.sys() / "bus/pci/drivers/vfio-pci/unbind"), kName);
}

}  // namespace
}  // namespace cairn::nvme
