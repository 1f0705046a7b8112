#include "protocol/s3/profile.h"

#include <algorithm>

namespace cairn::s3 {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n";
  const size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

}  // namespace

std::map<std::string, std::string> parse_profile(std::string_view text, std::string_view name,
                                                 bool* found) {
  std::map<std::string, std::string> result;
  bool inside = false;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view raw = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::string_view line = trimmed(raw);
    if (line.empty() || line[0] == '#' || line[0] == ';') continue;
    if (line[0] == '[') {
      std::string_view section = trimmed(line.substr(1, line.find(']') - 1));
      if (section.starts_with("profile ")) section = trimmed(section.substr(8));
      inside = section == name;
      if (inside) *found = true;
      continue;
    }
    const size_t equals = line.find('=');
    const bool nested = raw[0] == ' ' || raw[0] == '\t';
    if (!inside || nested || equals == std::string_view::npos) continue;
    std::string key(trimmed(line.substr(0, equals)));
    std::transform(key.begin(), key.end(), key.begin(), [](char c) {
      return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
    });
    result[key] = trimmed(line.substr(equals + 1));
  }
  return result;
}

}  // namespace cairn::s3
