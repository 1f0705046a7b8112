#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

namespace cairn {

enum class SizeError { kNone, kSyntax, kRange };

// Parses "64k", "1.5G", "0x200", … as qemu-img's sizes: one suffix of b k m g t p e in either case,
// powers of 1024, fractions rounded to the nearest byte.
SizeError parse_size(std::string_view text, uint64_t* bytes,
                     uint64_t max = std::numeric_limits<uint64_t>::max());

// Three significant digits and a unit: "1.5 GiB", "0.977 MiB", "0 B".
std::string human_size(uint64_t bytes);

}  // namespace cairn
