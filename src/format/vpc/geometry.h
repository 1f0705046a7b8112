#pragma once

#include <cstdint>
#include <optional>

namespace cairn::vpc {

struct Geometry {
  uint32_t cylinders = 0;
  uint32_t heads = 0;
  uint32_t sectors = 0;  // per track

  uint64_t total() const { return uint64_t{cylinders} * heads * sectors; }
  bool operator==(const Geometry&) const = default;
};

// The largest one: disks beyond it have a size and no geometry.
inline constexpr Geometry kLargest{65535, 16, 255};

// What the published algorithm gives for a number of sectors; the product may be smaller.
Geometry geometry_of(uint64_t sectors);
// The first geometry from there on that holds SECTORS.
Geometry geometry_for(uint64_t sectors);

}  // namespace cairn::vpc
