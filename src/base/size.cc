#include "base/size.h"

#include <cctype>
#include <cmath>
#include <cstdio>

namespace cairn {

SizeError parse_size(std::string_view text, uint64_t* bytes, uint64_t max) {
  size_t at = 0;
  while (at < text.size() && isspace(static_cast<unsigned char>(text[at]))) ++at;
  bool negative = false;
  if (at < text.size() && (text[at] == '+' || text[at] == '-')) negative = text[at++] == '-';
  const std::string_view rest = text.substr(at);
  unsigned __int128 value = 0;
  if (rest.size() > 2 && rest[0] == '0' && (rest[1] == 'x' || rest[1] == 'X')) {
    for (char c : rest.substr(2)) {
      if (!isxdigit(static_cast<unsigned char>(c))) return SizeError::kSyntax;
      const unsigned digit =
          c <= '9' ? static_cast<unsigned>(c - '0') : static_cast<unsigned>(tolower(c) - 'a') + 10;
      value = value * 16 + digit;
      if (value >> 64 != 0) return SizeError::kRange;
    }
  } else {
    size_t i = 0;
    bool too_large = false;
    for (; i < rest.size() && isdigit(static_cast<unsigned char>(rest[i])); ++i) {
      value = value * 10 + static_cast<unsigned>(rest[i] - '0');
      if (value >> 64 != 0) {
        too_large = true;
        value = 0;
      }
    }
    const bool whole_digits = i != 0;
    long double fraction = 0;
    bool fraction_digits = false;
    bool dot = false;
    if (i < rest.size() && rest[i] == '.') {
      dot = true;
      long double scale = 0.1L;
      for (++i; i < rest.size() && isdigit(static_cast<unsigned char>(rest[i])); ++i) {
        fraction += scale * static_cast<long double>(rest[i] - '0');
        scale /= 10;
        fraction_digits = true;
      }
    }
    if (!whole_digits && !fraction_digits) return SizeError::kSyntax;
    unsigned shift = 0;
    bool suffix = false;
    if (i < rest.size()) {
      const std::string_view units = "bkmgtpe";
      const size_t unit = units.find(static_cast<char>(tolower(rest[i])));
      if (unit == std::string_view::npos || i + 1 != rest.size()) return SizeError::kSyntax;
      shift = static_cast<unsigned>(unit) * 10;
      suffix = shift != 0;
    }
    if (dot && fraction != 0 && !suffix) return SizeError::kSyntax;
    if (too_large) return SizeError::kRange;
    value <<= shift;
    value += static_cast<unsigned __int128>(
        floorl(fraction * static_cast<long double>(uint64_t{1} << shift) + 0.5L));
  }
  if (negative) return SizeError::kRange;
  if (value > max) return SizeError::kRange;
  *bytes = static_cast<uint64_t>(value);
  return SizeError::kNone;
}

std::string human_size(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  // The next unit is taken from 1000 of the smaller one on, so that three digits are enough.
  while (value >= 1000 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  char buffer[40];
  std::snprintf(buffer, sizeof buffer, "%.3g %s", value, kUnits[unit]);
  return buffer;
}

}  // namespace cairn
