#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace cairn {

// The bytes that TEXT stands for; line ends are left out. Nothing when there is a character of
// another kind, or when the last bytes are cut off: RFC 4648 with or without the final '='.
std::optional<std::string> decode_base64(std::string_view text);

// BYTES as text, with the final '='.
std::string encode_base64(std::string_view bytes);

}  // namespace cairn
