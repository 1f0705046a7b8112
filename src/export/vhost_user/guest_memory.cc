#include "export/vhost_user/guest_memory.h"

#include <fmt/core.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/arith.h"
#include "base/error.h"

namespace cairn::vhost_user {
namespace {

// --- what the handler of SIGBUS knows ---

constexpr size_t kSlots = 1024;
// Longer mappings no machine has room for.
constexpr uint64_t kMostMapped = uint64_t{1} << 46;

struct Slot {
  std::atomic<bool> taken{false};
  std::atomic<uintptr_t> begin{0};  // 0: nothing is mapped
  std::atomic<size_t> bytes{0};
  std::atomic<bool> broken{false};
};
// The handler may neither allocate nor lock, so the table is the process's own and fixed.
std::array<Slot, kSlots> slots;
struct sigaction previous_action;

bool replace_cut_mapping(uintptr_t address) {
  for (Slot& slot : slots) {
    const uintptr_t begin = slot.begin.load();
    if (begin == 0 || address < begin || address - begin >= slot.bytes.load()) continue;
    slot.broken = true;
    return ::mmap(reinterpret_cast<void*>(begin), slot.bytes.load(), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
  }
  return false;
}

void on_bus_error(int, siginfo_t* info, void*) {
  const int error = errno;
  const bool ours = info->si_code == BUS_ADRERR &&
                    replace_cut_mapping(reinterpret_cast<uintptr_t>(info->si_addr));
  // The access happens again, and is then somebody else's affair.
  if (!ours) ::sigaction(SIGBUS, &previous_action, nullptr);
  errno = error;
}

void install_handler() {
  static const bool installed = [] {
    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    return ::sigaction(SIGBUS, &action, &previous_action) == 0;
  }();
  if (!installed) throw Error(ErrorKind::kIo, "cannot guard shared memory");
}

int take_slot() {
  for (size_t i = 0; i < kSlots; ++i) {
    bool expected = false;
    if (!slots[i].taken.compare_exchange_strong(expected, true)) continue;
    slots[i].broken = false;
    return static_cast<int>(i);
  }
  throw Error(ErrorKind::kNoMemory, "too many regions of shared memory in this process");
}

bool overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes) {
  return a < b + b_bytes && b < a + a_bytes;
}

}  // namespace

SharedMapping::SharedMapping(int file, uint64_t bytes) {
  struct stat status {};
  if (::fstat(file, &status) != 0) throw Error::system(errno, "shared memory");
  if (bytes == 0 || bytes > kMostMapped || status.st_size < 0 ||
      static_cast<uint64_t>(status.st_size) < bytes)
    invalid(fmt::format("shared memory of {} bytes in a file of {}", bytes, status.st_size));
  // Files of huge pages are mapped, and replaced, in whole ones.
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t block = static_cast<uint64_t>(status.st_blksize);
  const uint64_t whole =
      align_up(bytes, is_power_of_two(block) ? std::clamp<uint64_t>(block, page, 1 << 30) : page);
  install_handler();
  slot_ = take_slot();
  void* const mapped =
      ::mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
  if (mapped == MAP_FAILED) {
    const int error = errno;
    slots[static_cast<size_t>(slot_)].taken = false;
    slot_ = -1;
    throw Error::system(error, "cannot map shared memory");
  }
  begin_ = static_cast<std::byte*>(mapped);
  size_ = bytes;
  mapped_ = whole;
  Slot& slot = slots[static_cast<size_t>(slot_)];
  slot.bytes = whole;
  slot.begin = reinterpret_cast<uintptr_t>(mapped);
}

SharedMapping::SharedMapping(SharedMapping&& other) noexcept
    : begin_(std::exchange(other.begin_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_(std::exchange(other.mapped_, 0)),
      slot_(std::exchange(other.slot_, -1)) {}

SharedMapping& SharedMapping::operator=(SharedMapping&& other) noexcept {
  std::swap(begin_, other.begin_);
  std::swap(size_, other.size_);
  std::swap(mapped_, other.mapped_);
  std::swap(slot_, other.slot_);
  return *this;
}

SharedMapping::~SharedMapping() {
  if (slot_ < 0) return;
  Slot& slot = slots[static_cast<size_t>(slot_)];
  slot.begin = 0;
  ::munmap(begin_, mapped_);
  slot.taken = false;
}

bool SharedMapping::broken() const {
  return slot_ >= 0 && slots[static_cast<size_t>(slot_)].broken.load(std::memory_order_relaxed);
}

DirtyLog::DirtyLog(int file, LogArea area) {
  const auto end = checked_add(area.offset, area.size);
  if (!end || area.size == 0) invalid("log of written memory that is empty or too long");
  mapping_ = SharedMapping(file, *end);
  bits_ = mapping_.bytes().subspan(area.offset);
}

void DirtyLog::mark(uint64_t address, uint64_t length) {
  if (length == 0) return;
  constexpr uint64_t kPageBytes = 4096;
  const uint64_t last = checked_add(address, length - 1).value_or(UINT64_MAX) / kPageBytes;
  for (uint64_t page = address / kPageBytes; page <= last && page / 8 < bits_.size(); ++page) {
    auto& byte = reinterpret_cast<uint8_t&>(bits_[page / 8]);
    std::atomic_ref(byte).fetch_or(static_cast<uint8_t>(1u << (page % 8)));
  }
}

void GuestMemory::add(const MemoryRegion& region, int file) {
  if (regions_.size() >= kMostRegions) invalid("more regions of memory than there is room for");
  const auto mapped = checked_add(region.file_offset, region.size);
  if (region.size == 0 || !mapped || !checked_add(region.guest_address, region.size) ||
      !checked_add(region.user_address, region.size))
    invalid("region of memory that is empty or wraps");
  for (const Mapped& other : regions_)
    if (overlap(other.region.guest_address, other.region.size, region.guest_address, region.size) ||
        overlap(other.region.user_address, other.region.size, region.user_address, region.size))
      invalid("regions of memory overlap");
  regions_.push_back({.region = region, .mapping = SharedMapping(file, *mapped)});
}

void GuestMemory::remove(const MemoryRegion& region) {
  const auto found = std::find_if(regions_.begin(), regions_.end(), [&](const Mapped& one) {
    return one.region.guest_address == region.guest_address &&
           one.region.user_address == region.user_address && one.region.size == region.size;
  });
  if (found == regions_.end()) invalid("no such region of memory");
  regions_.erase(found);
}

std::byte* GuestMemory::from_user(uint64_t address, uint64_t length) const {
  for (const Mapped& one : regions_) {
    const uint64_t offset = address - one.region.user_address;
    if (address < one.region.user_address || offset >= one.region.size) continue;
    return length <= one.region.size - offset ? one.at(offset) : nullptr;
  }
  return nullptr;
}

MutableByteSpan GuestMemory::from_guest(uint64_t address, uint64_t length) const {
  for (const Mapped& one : regions_) {
    const uint64_t offset = address - one.region.guest_address;
    if (address < one.region.guest_address || offset >= one.region.size) continue;
    return {one.at(offset), static_cast<size_t>(std::min(length, one.region.size - offset))};
  }
  return {};
}

bool GuestMemory::broken() const {
  return std::any_of(regions_.begin(), regions_.end(),
                     [](const Mapped& one) { return one.mapping.broken(); });
}

}  // namespace cairn::vhost_user
