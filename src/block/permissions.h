#pragma once

#include <cstdint>

namespace cairn {

// What a user of a storage node does with it and what it forbids to others; bits as QEMU's image
// locking numbers them (byte 100 + bit: used, byte 200 + bit: not shared).
struct Permissions {
  static constexpr uint8_t kConsistentRead = 1 << 0;
  static constexpr uint8_t kWrite = 1 << 1;
  static constexpr uint8_t kWriteUnchanged = 1 << 2;
  static constexpr uint8_t kResize = 1 << 3;
  static constexpr uint8_t kAll = kConsistentRead | kWrite | kWriteUnchanged | kResize;

  uint8_t used = 0;
  uint8_t unshared = 0;
  bool operator==(const Permissions&) const = default;
};

}  // namespace cairn
