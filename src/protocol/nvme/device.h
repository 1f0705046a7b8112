#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.h"

namespace cairn::nvme {

// Addresses that a device can reach, both ends included.
struct AddressRange {
  uint64_t first = 0, last = 0;
};

// A PCI function that this process drives: its registers, the memory that it may reach, and its
// interrupts. From any thread, but for close().
class Device {
 public:
  virtual ~Device() = default;

  // The length of the registers; offsets below are inside, and multiples of the width.
  virtual uint64_t register_bytes() const = 0;
  // All ones once the device is gone.
  virtual uint32_t read32(uint64_t offset) = 0;
  virtual uint64_t read64(uint64_t offset) = 0;
  // What was stored to memory before is seen by the device first.
  virtual void write32(uint64_t offset, uint32_t value) = 0;
  virtual void write64(uint64_t offset, uint64_t value) = 0;

  // The unit of map(): its memory, addresses and lengths are multiples of it.
  virtual uint64_t map_bytes() const = 0;
  virtual std::vector<AddressRange> ranges() const = 0;
  // The device sees MEMORY from the address IOVA on, and may also write to it where WRITABLE.
  // Throws kNoMemory when this process may lock no more memory, kNoSpace when there are too many
  // mappings, and others.
  virtual void map(ByteSpan memory, uint64_t iova, bool writable) = 0;
  // When it returns the device cannot reach the range any more. Also after close().
  virtual void unmap(uint64_t iova, uint64_t length) noexcept = 0;

  // How many interrupts the device has.
  virtual unsigned vectors() const = 0;
  // Makes the first COUNT of them come, each as a descriptor (an eventfd) that becomes readable.
  virtual std::vector<int> enable_interrupts(unsigned count) = 0;
  // Readable when the system wants the device back; nothing where it cannot say so.
  virtual std::optional<int> removal() const = 0;
  // Resets the function, whatever state it is in; false where that is impossible.
  virtual bool reset() = 0;
  // Gives it all back: the device reaches no memory any more. No other call may follow, but for
  // map(), which throws, and unmap(). Nothing happens the second time.
  virtual void close() noexcept = 0;
};

}  // namespace cairn::nvme
