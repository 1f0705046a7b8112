#include "base/utf16.h"

namespace cairn {

void append_utf8(std::string& out, uint32_t code) {
  const auto put = [&](uint32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0 | code >> 6);
    put(0x80 | (code & 63));
  } else if (code < 0x10000) {
    put(0xe0 | code >> 12);
    put(0x80 | (code >> 6 & 63));
    put(0x80 | (code & 63));
  } else {
    put(0xf0 | code >> 18);
    put(0x80 | (code >> 12 & 63));
    put(0x80 | (code >> 6 & 63));
    put(0x80 | (code & 63));
  }
}

std::string from_utf16(ByteSpan bytes, bool big_endian) {
  std::string result;
  const auto unit = [&](size_t at) -> uint32_t {
    return big_endian ? load_be<uint16_t>(bytes, at) : load_le<uint16_t>(bytes, at);
  };
  for (size_t at = 0; at + 1 < bytes.size(); at += 2) {
    uint32_t code = unit(at);
    if (code == 0) break;
    if (code >= 0xd800 && code < 0xdc00 && at + 3 < bytes.size()) {
      const uint32_t low = unit(at + 2);
      if (low >= 0xdc00 && low < 0xe000) {
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
        at += 2;
      }
    }
    append_utf8(result, code >= 0xd800 && code < 0xe000 ? 0xfffd : code);
  }
  return result;
}

std::vector<std::byte> to_utf16(std::string_view text, bool big_endian) {
  std::vector<std::byte> result;
  const auto put = [&](uint32_t unit) {
    const size_t at = result.size();
    result.resize(at + 2);
    if (big_endian)
      store_be<uint16_t>(result, at, static_cast<uint16_t>(unit));
    else
      store_le<uint16_t>(result, at, static_cast<uint16_t>(unit));
  };
  for (size_t at = 0; at < text.size();) {
    const auto first = static_cast<unsigned char>(text[at]);
    const size_t more = first < 0x80 ? 0 : first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    uint32_t code = more == 0 ? first : first & (0x3fu >> more);
    bool good = (first < 0x80 || first >= 0xc2) && first < 0xf5 && at + more < text.size();
    for (size_t i = 1; good && i <= more; ++i) {
      const auto next = static_cast<unsigned char>(text[at + i]);
      good = (next & 0xc0) == 0x80;
      code = code << 6 | (next & 0x3f);
    }
    if (!good)
      throw Error(ErrorKind::kInvalid, "'" + std::string(text) + "' is not well-formed UTF-8");
    at += more + 1;
    if (code < 0x10000) {
      put(code);
    } else {
      put(0xd800 + ((code - 0x10000) >> 10));
      put(0xdc00 + ((code - 0x10000) & 0x3ff));
    }
  }
  return result;
}

}  // namespace cairn
