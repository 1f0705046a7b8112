#include "protocol/vvfat/names.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/utf16.h"
#include "platform/directory.h"
#include "platform/system.h"

namespace cairn::vvfat {
namespace {

constexpr std::u16string_view kForbidden = u"\"*:<>?\\|";
// The private-use characters for kForbidden, in its order; control characters C are 0xf000 + C.
constexpr std::u16string_view kSubstitutes = u"\uf020\uf021\uf022\uf023\uf024\uf025\uf026\uf027";
constexpr char16_t kFinalSpace = 0xf028;
constexpr char16_t kFinalDot = 0xf029;
constexpr size_t kMaxHostName = 255;  // bytes
// Code page 437 from 0x80 on.
constexpr std::u16string_view kCodePage =
    u"ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄"
    u"▌▐▀"
    u"αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u00a0";
static_assert(kCodePage.size() == 128);

// The next code point of TEXT at AT, which moves past it; nothing (and one byte on) when the
// bytes are no UTF-8.
std::optional<char32_t> next_code_point(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(at);
  if (first < 0x80) return text[at++];
  const size_t more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
  constexpr char32_t kLeast[] = {0, 0x80, 0x800, 0x10000};
  char32_t code = first & (0x3fu >> more);
  bool good = first >= 0xc2 && first < 0xf5 && more < text.size() - at;
  for (size_t i = 1; good && i <= more; ++i) {
    good = (byte(at + i) & 0xc0) == 0x80;
    code = code << 6 | (byte(at + i) & 0x3f);
  }
  good = good && code >= kLeast[more] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
  at += good ? more + 1 : 1;
  return good ? std::optional(code) : std::nullopt;
}

bool kept_in_short_name(char32_t c) {
  return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         (c < 0x80 && c != 0 &&
          std::string_view("$%'-_@~`!(){}^#&").find(static_cast<char>(c)) !=
              std::string_view::npos);
}

char32_t upper_for_short_name(char32_t c) {
  if (c >= 'a' && c <= 'z') return c - 'a' + 'A';
  // The two letters outside of ASCII whose capitals are inside.
  if (c == 0x131) return 'I';
  if (c == 0x17f) return 'S';
  return c;
}

// The character that UNIT is shown for; UNIT where no name of the host can have that.
char16_t plain_unit(char16_t unit, bool last) {
  char16_t plain = unit;
  if (const size_t found = kSubstitutes.find(unit); found != std::u16string_view::npos)
    plain = kForbidden[found];
  else if (unit > 0xf000 && unit < 0xf020)
    plain = static_cast<char16_t>(unit - 0xf000);
  else if (last && (unit == kFinalSpace || unit == kFinalDot))
    plain = unit == kFinalSpace ? u' ' : u'.';
  return platform::kForbiddenInNames.find(plain) == std::u16string_view::npos ? plain : unit;
}

}  // namespace

std::optional<std::u16string> shown_name(std::string_view host_name) {
  std::u16string out;
  for (size_t at = 0; at < host_name.size();) {
    const auto code = next_code_point(host_name, at);
    if (!code) return std::nullopt;
    if (*code >= 0x10000) {
      out += static_cast<char16_t>(0xd800 + ((*code - 0x10000) >> 10));
      out += static_cast<char16_t>(0xdc00 + ((*code - 0x10000) & 0x3ff));
      continue;
    }
    auto unit = static_cast<char16_t>(*code);
    if (const size_t found = kForbidden.find(unit); found != std::u16string_view::npos)
      unit = kSubstitutes[found];
    else if (unit < 0x20)
      unit = static_cast<char16_t>(0xf000 + unit);
    out += unit;
  }
  if (!out.empty() && out.back() == u'.') out.back() = kFinalDot;
  if (!out.empty() && out.back() == u' ') out.back() = kFinalSpace;
  return out;
}

std::optional<std::string> host_name(std::u16string_view shown) {
  std::u16string plain(shown);
  for (size_t at = 0; at < plain.size(); ++at) {
    char16_t& unit = plain[at];
    if (unit < 0x20 || unit == u'/' || kForbidden.find(unit) != std::u16string_view::npos)
      return std::nullopt;
    if (unit >= 0xd800 && unit < 0xe000) {
      const bool pair = unit < 0xdc00 && at + 1 < plain.size() && plain[at + 1] >= 0xdc00 &&
                        plain[at + 1] < 0xe000;
      if (!pair) return std::nullopt;
      ++at;
    } else {
      unit = plain_unit(unit, at + 1 == plain.size());
    }
  }
  std::string name = utf8_of(plain);
  if (name.empty() || name == "." || name == ".." || name.size() > kMaxHostName)
    return std::nullopt;
  return name;
}

std::u16string short_text(const ShortName& name, uint8_t case_flags) {
  const auto part = [&](size_t begin, size_t end, bool lower) {
    while (end > begin && name[end - 1] == ' ') --end;
    std::u16string out;
    for (; begin < end; ++begin) {
      const auto c = static_cast<unsigned char>(name[begin]);
      const bool capital = lower && c >= 'A' && c <= 'Z';
      out += c >= 0x80 ? kCodePage[c - 0x80] : static_cast<char16_t>(capital ? c - 'A' + 'a' : c);
    }
    return out;
  };
  const std::u16string extension = part(8, 11, (case_flags & DirectoryEntry::kLowerExtension) != 0);
  std::u16string out = part(0, 8, (case_flags & DirectoryEntry::kLowerBase) != 0);
  if (!extension.empty()) out += u"." + extension;
  return out;
}

std::string utf8_of(std::u16string_view shown) {
  std::string out;
  for (size_t at = 0; at < shown.size(); ++at) {
    char32_t code = shown[at];
    const char32_t low = at + 1 < shown.size() ? shown[at + 1] : 0;
    if (code >= 0xd800 && code < 0xdc00 && low >= 0xdc00 && low < 0xe000) {
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
      ++at;
    } else if (code >= 0xd800 && code < 0xe000) {
      code = 0xfffd;
    }
    append_utf8(out, code);
  }
  return out;
}

std::u16string folded(std::u16string_view name) {
  std::u16string out(name);
  for (char16_t& unit : out) {
    if (unit >= 0x80)
      unit = platform::upper_case(unit);
    else if (unit >= u'a' && unit <= u'z')
      unit = static_cast<char16_t>(unit - u'a' + u'A');
  }
  return out;
}

std::string printable(const ShortName& name) {
  std::string out;
  for (const char c : name) out += c >= 0x20 && c < 0x7f ? c : '?';
  return out;
}

ShortName MangledName::name() const {
  ShortName out;
  out.fill(' ');
  std::copy(base.begin(), base.end(), out.begin());
  std::copy(extension.begin(), extension.end(), out.begin() + 8);
  return out;
}

MangledName mangle(std::string_view host_name) {
  MangledName out;
  size_t dots = 0;
  bool base_cut = false;
  bool extension_cut = false;
  for (size_t at = 0; at < host_name.size();) {
    const auto code = next_code_point(host_name, at);
    const char32_t c = code ? upper_for_short_name(*code) : 0;
    if (c == '.' && !out.base.empty()) {
      ++dots;
      out.extension.clear();
      extension_cut = false;
    } else if (!kept_in_short_name(c)) {
      out.lossy = true;
    } else if (dots == 0) {
      if (out.base.size() < 8)
        out.base += static_cast<char>(c);
      else
        base_cut = true;
    } else if (out.extension.size() < 3) {
      out.extension += static_cast<char>(c);
    } else {
      extension_cut = true;
    }
  }
  out.lossy = out.lossy || base_cut || extension_cut || dots > 1;
  return out;
}

bool ShortNames::take(const ShortName& name) {
  return taken_.insert(std::string(name.begin(), name.end())).second;
}

ShortName ShortNames::take_numbered(const MangledName& mangled) {
  uint32_t first = 1;
  for (size_t digits = 1; digits <= 6; ++digits, first *= 10) {
    const std::string stem = mangled.base.substr(0, 8 - 1 - digits);
    uint32_t& next =
        next_.try_emplace(fmt::format("{}~{}{}", stem, digits, mangled.extension), first)
            .first->second;
    while (next < first * 10) {
      MangledName numbered = mangled;
      numbered.base = fmt::format("{}~{}", stem, next++);
      const ShortName name = numbered.name();
      if (take(name)) return name;
    }
  }
  throw Error(ErrorKind::kInvalid,
              "there are too many names like '" + printable(mangled.name()) + "' in one directory");
}

}  // namespace cairn::vvfat
