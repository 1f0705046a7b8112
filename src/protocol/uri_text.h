#pragma once

#include <string>
#include <string_view>

namespace cairn {

// A part of a URI with the bytes that its "%XX" stand for. Throws kInvalid when one of them is 0.
std::string decoded_part(std::string_view text);

// Takes what is before MARK off TEXT, and MARK as well; all of it when there is none.
std::string_view cut(std::string_view* text, char mark);

}  // namespace cairn
