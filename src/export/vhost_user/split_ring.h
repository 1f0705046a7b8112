// The split virtqueue of virtio 1.2 (2.7) as the device sees it.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "export/vhost_user/guest_memory.h"

namespace cairn::vhost_user {

// A request as the guest laid it out: what the device reads, then what it writes.
struct Chain {
  uint16_t head = 0;
  std::vector<Segment> readable;
  std::vector<Segment> writable;
};

// Where a ring is and what the peers agreed on.
struct RingSetup {
  uint32_t size = 0;  // entries; a power of two
  VringAddresses addresses;
  uint64_t features = 0;
};

// One ring. Everything that it reads may change at any time and is checked after it was copied; it
// belongs to one worker.
class SplitRing {
 public:
  static constexpr uint32_t kMostEntries = 32768;
  // Of a chain: descriptors that a request may have, however they are linked.
  static constexpr size_t kMostSegments = 1024;

  // Throws kInvalid where a part of the ring is not in MEMORY. LOG may be null; both must outlive
  // the ring.
  SplitRing(const GuestMemory& memory, DirtyLog* log, const RingSetup& setup);

  // Entries that the guest has made available and that were not taken yet. Throws kCorrupt when
  // they are more than the ring has.
  uint32_t available() const;
  // The head of the next available chain; there must be one. Throws kCorrupt for a number that the
  // ring does not have.
  uint16_t next_head();
  // The chain that begins at HEAD. Throws kCorrupt when it leaves the guest's memory, the ring or
  // an indirect table, is too long, or has parts in the wrong order.
  void read_chain(uint16_t head, Chain* chain) const;
  // Gives the chain at HEAD back, LENGTH bytes of which were written.
  void push_used(uint16_t head, uint32_t length);
  // Whether the guest wants to be woken for what was pushed since the last call.
  bool must_notify();
  // Asks the guest to announce, or not to announce, what it makes available.
  void ask_for_kicks(bool wanted);

  uint16_t next_available() const { return next_available_; }
  void set_next_available(uint16_t index) { next_available_ = index; }
  uint16_t used_index() const { return used_index_; }
  void log_written(uint64_t guest_address, uint64_t length) const {
    if (log_ != nullptr) log_->mark(guest_address, length);
  }

 private:
  struct Descriptor {
    uint64_t address = 0;
    uint32_t length = 0;
    uint16_t flags = 0;
    uint16_t next = 0;
  };
  struct Table;
  uint16_t load(const std::byte* at) const;
  void add_segments(const Descriptor& descriptor, Chain* chain) const;
  std::vector<std::byte> copy_table(const Descriptor& descriptor) const;
  void walk(const Table& table, uint16_t first, Chain* chain) const;
  bool has(uint64_t bit) const { return (setup_.features & bit) != 0; }
  void log_used(uint64_t offset, uint64_t length) const;

  const GuestMemory& memory_;
  DirtyLog* const log_;
  const RingSetup setup_;
  const uint32_t mask_;
  std::byte* descriptors_ = nullptr;
  std::byte* available_ = nullptr;
  std::byte* used_ = nullptr;
  uint16_t next_available_ = 0;
  uint16_t used_index_ = 0;
  uint16_t notified_ = 0;  // the used index up to which the guest was woken, or did not want it
};

}  // namespace cairn::vhost_user
