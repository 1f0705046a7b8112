#pragma once

#include <string>
#include <string_view>

namespace cairn {

// A part of a URI with the bytes that its "%XX" stand for. Throws kInvalid when one of them is 0.
std::string decoded_part(std::string_view text);

// Takes what is before MARK off TEXT, and MARK as well; all of it when there is none.
std::string_view cut(std::string_view* text, char mark);

// PATH with "%XX" for the characters that would end it in a URI.
std::string escaped_path(std::string_view path);

// HOST as a URI has it: an address of IPv6 is in brackets.
std::string bracketed(std::string_view host);

}  // namespace cairn
