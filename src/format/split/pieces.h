#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::split {

// True when FILENAME is that of a first piece, `.001` or `.000`, and the next one is next to it, or
// of a later one with its first piece next to it. Blocks.
bool is_piece(std::string_view filename);

// All pieces of the disk whose first one is FIRST, in order. Throws kInvalid when FIRST is not the
// first, or when one of them is missing. Blocks.
std::vector<std::string> pieces_of(const std::string& first);

// The size of the file PIECE, without opening it. Throws the system's error. Blocks.
uint64_t bytes_of_piece(const std::string& piece);

}  // namespace cairn::split
