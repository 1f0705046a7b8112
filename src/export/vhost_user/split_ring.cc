#include "export/vhost_user/split_ring.h"

#include <atomic>
#include <cstring>
#include <utility>

#include "base/arith.h"
#include "base/error.h"

namespace cairn::vhost_user {
namespace {

constexpr uint64_t kDescriptorBytes = 16, kUsedEntryBytes = 8, kRingHeaderBytes = 4;
constexpr uint16_t kNext = 1, kWrite = 2, kIndirectTable = 4;  // flags of descriptors
constexpr uint16_t kNoInterrupt = 1, kNoNotify = 1;            // flags of rings

[[noreturn]] void corrupt(const char* what) { throw Error(ErrorKind::kCorrupt, what); }

void store(std::byte* at, uint16_t value) {
  std::atomic_ref(*reinterpret_cast<uint16_t*>(at)).store(value, std::memory_order_release);
}

}  // namespace

// A table of descriptors: the ring's own, or a copy of an indirect one.
struct SplitRing::Table {
  const std::byte* begin = nullptr;
  uint32_t entries = 0;
  bool indirect = false;

  Descriptor at(uint32_t index) const {
    std::byte copy[kDescriptorBytes];
    std::memcpy(copy, begin + index * kDescriptorBytes, sizeof copy);
    return {.address = load_le<uint64_t>(copy, 0),
            .length = load_le<uint32_t>(copy, 8),
            .flags = load_le<uint16_t>(copy, 12),
            .next = load_le<uint16_t>(copy, 14)};
  }
};

SplitRing::SplitRing(const GuestMemory& memory, DirtyLog* log, const RingSetup& setup)
    : memory_(memory), log_(log), setup_(setup), mask_(setup.size - 1) {
  if (!is_power_of_two(setup.size) || setup.size > kMostEntries)
    invalid("ring whose size is no power of two, or too large");
  // Each ends with the index for events.
  const uint64_t available_bytes = kRingHeaderBytes + 2 * uint64_t{setup.size} + 2;
  const uint64_t used_bytes = kRingHeaderBytes + kUsedEntryBytes * setup.size + 2;
  descriptors_ =
      memory.from_user(setup.addresses.descriptors, kDescriptorBytes * uint64_t{setup.size});
  available_ = memory.from_user(setup.addresses.available, available_bytes);
  used_ = memory.from_user(setup.addresses.used, used_bytes);
  if (descriptors_ == nullptr || available_ == nullptr || used_ == nullptr)
    invalid("ring outside of the guest's memory");
  const auto misaligned = [](const std::byte* at, uintptr_t alignment) {
    return reinterpret_cast<uintptr_t>(at) % alignment != 0;
  };
  if (misaligned(descriptors_, 16) || misaligned(available_, 2) || misaligned(used_, 4))
    invalid("ring that is not aligned");
  used_index_ = notified_ = load(used_ + 2);
}

uint16_t SplitRing::load(const std::byte* at) const {
  auto* value = reinterpret_cast<uint16_t*>(const_cast<std::byte*>(at));
  return std::atomic_ref(*value).load(std::memory_order_acquire);
}

uint32_t SplitRing::available() const {
  const auto waiting = static_cast<uint16_t>(load(available_ + 2) - next_available_);
  if (waiting > setup_.size) corrupt("more requests are available than the ring has entries");
  return waiting;
}

uint16_t SplitRing::next_head() {
  const uint16_t head = load(available_ + kRingHeaderBytes + 2 * (next_available_ & mask_));
  if (head >= setup_.size) corrupt("request outside of the ring");
  ++next_available_;
  return head;
}

void SplitRing::add_segments(const Descriptor& descriptor, Chain* chain) const {
  const bool write = (descriptor.flags & kWrite) != 0;
  if (!write && !chain->writable.empty()) corrupt("request with parts in the wrong order");
  std::vector<Segment>& segments = write ? chain->writable : chain->readable;
  uint64_t address = descriptor.address;
  uint64_t left = descriptor.length;
  while (left != 0) {
    const MutableByteSpan part = memory_.from_guest(address, left);
    if (part.empty()) corrupt("request outside of the guest's memory");
    if (chain->readable.size() + chain->writable.size() >= kMostSegments)
      corrupt("request with too many parts");
    segments.push_back({.data = part.data(), .length = part.size(), .guest_address = address});
    address += part.size();
    left -= part.size();
  }
}

std::vector<std::byte> SplitRing::copy_table(const Descriptor& descriptor) const {
  if (!has(feature::kIndirect)) corrupt("indirect request that was not agreed on");
  if (descriptor.length == 0 || descriptor.length % kDescriptorBytes != 0 ||
      descriptor.length / kDescriptorBytes > kMostSegments)
    corrupt("indirect request of a wrong length");
  std::vector<std::byte> copy(descriptor.length);
  uint64_t done = 0;
  while (done < copy.size()) {
    const MutableByteSpan part = memory_.from_guest(descriptor.address + done, copy.size() - done);
    if (part.empty()) corrupt("indirect request outside of the guest's memory");
    std::memcpy(copy.data() + done, part.data(), part.size());
    done += part.size();
  }
  return copy;
}

void SplitRing::walk(const Table& table, uint16_t first, Chain* chain) const {
  uint32_t index = first;
  for (uint32_t seen = 0;; ++seen) {
    // A chain that is longer than its table is a loop.
    if (index >= table.entries || seen >= table.entries || seen >= kMostSegments)
      corrupt("request whose parts do not end");
    const Descriptor descriptor = table.at(index);
    if ((descriptor.flags & kIndirectTable) != 0) {
      if (table.indirect || (descriptor.flags & kNext) != 0)
        corrupt("indirect request within another one");
      const std::vector<std::byte> copy = copy_table(descriptor);
      const Table inner{.begin = copy.data(),
                        .entries = static_cast<uint32_t>(copy.size() / kDescriptorBytes),
                        .indirect = true};
      walk(inner, 0, chain);
      return;
    }
    add_segments(descriptor, chain);
    if ((descriptor.flags & kNext) == 0) return;
    index = descriptor.next;
  }
}

void SplitRing::read_chain(uint16_t head, Chain* chain) const {
  chain->head = head;
  chain->readable.clear();
  chain->writable.clear();
  const Table table{.begin = descriptors_, .entries = setup_.size, .indirect = false};
  walk(table, head, chain);
}

void SplitRing::log_used(uint64_t offset, uint64_t length) const {
  if (log_ != nullptr && (setup_.addresses.flags & VringAddresses::kLog) != 0)
    log_->mark(setup_.addresses.log + offset, length);
}

void SplitRing::push_used(uint16_t head, uint32_t length) {
  const uint64_t offset = kRingHeaderBytes + kUsedEntryBytes * (used_index_ & mask_);
  const uint32_t entry[2] = {head, length};
  std::memcpy(used_ + offset, entry, sizeof entry);
  log_used(offset, sizeof entry);
  ++used_index_;
  store(used_ + 2, used_index_);
  log_used(2, 2);
}

bool SplitRing::must_notify() {
  const uint16_t now = used_index_;
  // What the guest wrote to its flags before it saw the new index must be seen.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const uint16_t before = std::exchange(notified_, now);
  if (before == now) return false;
  if (has(feature::kNotifyOnEmpty) && load(available_ + 2) == next_available_) return true;
  if (!has(feature::kEventIndex)) return (load(available_) & kNoInterrupt) == 0;
  const uint16_t event = load(available_ + kRingHeaderBytes + 2 * uint64_t{setup_.size});
  return static_cast<uint16_t>(now - event - 1) < static_cast<uint16_t>(now - before);
}

void SplitRing::ask_for_kicks(bool wanted) {
  if (has(feature::kEventIndex)) {
    const uint64_t offset = kRingHeaderBytes + kUsedEntryBytes * setup_.size;
    // An index far away is not reached: nothing needs to be stored while kicks are not wanted.
    if (wanted) {
      store(used_ + offset, next_available_);
      log_used(offset, 2);
    }
  } else {
    store(used_, wanted ? uint16_t{0} : kNoNotify);
    log_used(0, 2);
  }
  // Before the available index is read once more.
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

}  // namespace cairn::vhost_user
