#include "cli/escape.h"

#include <cstdio>

#include "cli/passwords.h"

namespace cairn::cli {
namespace {

bool escaping = false;

std::string escape(std::string_view text, bool lines) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    // The controls of ISO 6429 have two bytes in UTF-8.
    const bool second_set = c == 0xc2 && next >= 0x80 && next < 0xa0;
    const bool kept = lines && (c == '\n' || c == '\t');
    if (!second_set && (kept || (c >= 0x20 && c != 0x7f))) {
      out += text[i];
      continue;
    }
    char code[8];
    std::snprintf(code, sizeof code, "\\x%02x", static_cast<unsigned>(second_set ? next : c));
    out += code;
    if (second_set) ++i;
  }
  return out;
}

}  // namespace

void set_escaping(bool on) { escaping = on; }
std::string shown(std::string_view text) {
  return escaping ? escape(conceal(std::string(text)), false) : std::string(text);
}
std::string shown_lines(std::string_view text) {
  return escaping ? escape(conceal(std::string(text)), true) : std::string(text);
}

}  // namespace cairn::cli
