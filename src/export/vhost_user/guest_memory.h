// The memory of a guest as the back end maps it: every address that a front end or a guest names is
// checked here before it becomes a pointer.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "base/own_fd.h"
#include "export/vhost_user/wire.h"

namespace cairn::vhost_user {

// A file of the front end, mapped shared. Who has the file may cut it short at any time, and to
// touch what is missing then is a SIGBUS: the first mapping installs a handler of that signal,
// which puts zeroes in place of a whole mapping that was cut and passes on what is not about one.
class SharedMapping {
 public:
  SharedMapping() = default;
  // The first BYTES of FILE. Throws kInvalid where it has not as many, or the system refuses.
  SharedMapping(int file, uint64_t bytes);
  SharedMapping(SharedMapping&& other) noexcept;
  SharedMapping& operator=(SharedMapping&& other) noexcept;
  ~SharedMapping();

  MutableByteSpan bytes() const { return {begin_, size_}; }
  // The file was cut: what the mapping shows is no longer anybody's memory.
  bool broken() const;

 private:
  std::byte* begin_ = nullptr;
  size_t size_ = 0;    // what was asked for
  size_t mapped_ = 0;  // with the rest of the last page
  int slot_ = -1;      // in the table that the signal's handler reads
};

// Notes which pages of a guest were written, for a move to another machine: a bit for every 4 KiB.
class DirtyLog {
 public:
  // Throws kInvalid.
  DirtyLog(int file, LogArea area);
  // LENGTH bytes of the guest at ADDRESS were written. From any worker.
  void mark(uint64_t address, uint64_t length);

 private:
  SharedMapping mapping_;
  MutableByteSpan bits_;
};

// A stretch of a buffer of the guest.
struct Segment {
  std::byte* data = nullptr;
  uint64_t length = 0;
  uint64_t guest_address = 0;
};

// The regions that a front end shares. Immutable but for add and remove, which happen while no
// queue runs.
class GuestMemory {
 public:
  static constexpr size_t kMostRegions = 32;

  // Maps REGION of FILE. Throws kInvalid when it is empty, wraps, overlaps another one or is no
  // part of the file.
  void add(const MemoryRegion& region, int file);
  // Unmaps the region with the addresses and the size of REGION. Throws kInvalid.
  void remove(const MemoryRegion& region);

  // LENGTH bytes at ADDRESS of the front end, which must be within one region; null otherwise.
  std::byte* from_user(uint64_t address, uint64_t length) const;
  // The bytes from ADDRESS of the guest on, at most LENGTH of them, as many as are in one region;
  // empty when the address is nowhere.
  MutableByteSpan from_guest(uint64_t address, uint64_t length) const;
  bool broken() const;

 private:
  struct Mapped {
    MemoryRegion region;
    SharedMapping mapping;
    std::byte* at(uint64_t offset) const {
      return mapping.bytes().data() + region.file_offset + offset;
    }
  };
  std::vector<Mapped> regions_;
};

}  // namespace cairn::vhost_user
