#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "block/node.h"

// Tar archives: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; and what GNU
// tar adds for long names and large files.
namespace cairn::ova {

inline constexpr uint64_t kTarBlock = 512;

// One plain file of an archive.
struct Member {
  std::string name;
  uint64_t offset = 0;  // of its first byte in the archive
  uint64_t bytes = 0;
};

// A header block, free of I/O.
struct TarHeader {
  std::string name;
  uint64_t bytes = 0;
  char type = '0';

  // Nothing for a block of zeroes, which ends the archive. Throws kInvalid when it is no header.
  static std::optional<TarHeader> decode(ByteSpan block);
  // For a plain file that its owner may write and all may read. Throws kInvalid for names of more
  // than 100 bytes.
  void encode(MutableByteSpan block, uint64_t seconds) const;
  // True when HEAD, the start of a file, is a header.
  static bool looks_like(ByteSpan head);
};

// The files of the archive, in order. Throws kInvalid for what is cut, damaged, or larger than any
// appliance's archive: more than 4096 headers.
Task<std::vector<Member>> read_tar(Node& file);

}  // namespace cairn::ova
