#pragma once

#include <cstdint>

#include "block/node.h"
#include "block/remote.h"

namespace cairn {

constexpr uint64_t kShortestPieceBytes = 64 << 10;

// What a piece is halved to, at most, for servers that take short requests only.
inline uint64_t fit_piece(uint64_t bytes, const Node& node) {
  const uint64_t most = node.limits().max_transfer;
  while (most != 0 && bytes > most && bytes > kShortestPieceBytes) bytes /= 2;
  return bytes;
}

// How much is under way at a time, in long pieces: all of it is in memory. More of it where the
// answers of SOURCE take long, since a line that is fast as well holds as much.
inline uint64_t bytes_under_way(const Node& source) {
  return is_distant(source) ? uint64_t{24} << 20 : uint64_t{16} << 20;
}

}  // namespace cairn
