#include "protocol/uri_text.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/error.h"
#include "base/percent.h"

namespace cairn {

std::string decoded_part(std::string_view text) {
  std::string result = percent_decoded(text);
  if (result.find('\0') != std::string::npos) invalid("the URI has a zero byte");
  return result;
}

std::string_view cut(std::string_view* text, char mark) {
  const size_t at = std::min(text->find(mark), text->size());
  const std::string_view part = text->substr(0, at);
  text->remove_prefix(std::min(at + 1, text->size()));
  return part;
}

std::string escaped_path(std::string_view path) {
  std::string result;
  for (const char c : path)
    if (c == '%' || c == '?' || c == '#')
      result += fmt::format("%{:02X}", c);
    else
      result += c;
  return result;
}

std::string bracketed(std::string_view host) {
  return host.find(':') != std::string_view::npos ? fmt::format("[{}]", host) : std::string(host);
}

}  // namespace cairn
