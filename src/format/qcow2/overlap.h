#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/options.h"

namespace cairn::qcow2 {

// What must not be overwritten by anything but itself, as bits of the overlap-check option.
enum OverlapPart : uint32_t {
  kOverlapHeader = 1 << 0,
  kOverlapActiveL1 = 1 << 1,
  kOverlapActiveL2 = 1 << 2,
  kOverlapRefcountTable = 1 << 3,
  kOverlapRefcountBlock = 1 << 4,
  kOverlapSnapshotTable = 1 << 5,
  kOverlapInactiveL1 = 1 << 6,
  kOverlapInactiveL2 = 1 << 7,
  kOverlapBitmapDirectory = 1 << 8,
};
inline constexpr uint32_t kOverlapAll = 0x1ff;
inline constexpr uint32_t kOverlapConstant = kOverlapHeader | kOverlapActiveL1 |
                                             kOverlapRefcountTable | kOverlapSnapshotTable |
                                             kOverlapBitmapDirectory;
inline constexpr uint32_t kOverlapCached =
    kOverlapConstant | kOverlapActiveL2 | kOverlapRefcountBlock | kOverlapInactiveL1;

// The parts that overlap-check, overlap-check.template and overlap-check.* ask for. Throws kInvalid
// with QEMU's wording.
uint32_t overlap_parts(const Options& options);

}  // namespace cairn::qcow2
