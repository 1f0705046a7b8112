#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace cairn {

// Appends one code point, at most 0x10ffff.
void append_utf8(std::string& out, uint32_t code);
// UTF-16 of either byte order, up to the first NUL, as UTF-8; what is no text becomes U+FFFD.
std::string from_utf16(ByteSpan bytes, bool big_endian);
// Without a terminator. Throws kInvalid when TEXT is not UTF-8.
std::vector<std::byte> to_utf16(std::string_view text, bool big_endian);

}  // namespace cairn
