#include "format/vpc/geometry.h"

#include <algorithm>

namespace cairn::vpc {

Geometry geometry_of(uint64_t sectors) {
  sectors = std::min(sectors, kLargest.total());
  Geometry result;
  uint64_t tracks = 0;
  if (sectors >= uint64_t{65535} * 16 * 63) {
    result.sectors = 255;
    result.heads = 16;
    tracks = sectors / 255;
  } else {
    result.sectors = 17;
    tracks = sectors / 17;
    result.heads = static_cast<uint32_t>(std::max<uint64_t>(4, (tracks + 1023) / 1024));
    if (result.heads > 16 || tracks >= uint64_t{result.heads} * 1024) {
      result.sectors = 31;
      result.heads = 16;
      tracks = sectors / 31;
    }
    if (result.heads == 16 && result.sectors == 31 && tracks >= 16 * 1024) {
      result.sectors = 63;
      tracks = sectors / 63;
    }
  }
  result.cylinders = static_cast<uint32_t>(tracks / result.heads);
  return result;
}

Geometry geometry_for(uint64_t sectors) {
  sectors = std::min(sectors, kLargest.total());
  if (sectors == 0) return {};
  Geometry result;
  for (uint64_t more = 0; result.total() < sectors; ++more) result = geometry_of(sectors + more);
  return result;
}

}  // namespace cairn::vpc
