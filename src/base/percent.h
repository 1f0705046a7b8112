#pragma once

#include <string>
#include <string_view>

namespace cairn {

// The value of a hexadecimal digit; -1 for another character.
int hex_digit(char c);

// TEXT with the bytes that its "%XX" stand for; a '%' without two digits stays.
std::string percent_decoded(std::string_view text);

}  // namespace cairn
