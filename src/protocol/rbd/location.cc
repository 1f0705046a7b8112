#include "protocol/rbd/location.h"

#include <fmt/core.h>

#include "base/error.h"

namespace cairn::rbd {
namespace {

constexpr std::string_view kScheme = "rbd:";

// Takes the text before the first of the characters ENDS that no backslash precedes from REST, with
// that character; *END is it, or 0 at the end of the text.
std::string take(std::string_view& rest, std::string_view ends, char* end) {
  std::string part;
  size_t at = 0;
  *end = 0;
  for (; at < rest.size(); ++at) {
    if (rest[at] == '\\' && at + 1 < rest.size()) {
      part += rest[++at];
    } else if (ends.find(rest[at]) != std::string_view::npos) {
      *end = rest[at++];
      break;
    } else {
      part += rest[at];
    }
  }
  rest.remove_prefix(at);
  return part;
}

std::string escaped(const std::string& text) {
  std::string result;
  for (const char each : text) {
    if (each == ':' || each == '=' || each == '\\') result += '\\';
    result += each;
  }
  return result;
}

}  // namespace

Location parse_name(std::string_view name) {
  if (!name.starts_with(kScheme)) invalid("File name must start with 'rbd:'");
  name.remove_prefix(kScheme.size());
  Location result;
  char end = 0;
  result.pool = take(name, "/", &end);
  if (end == 0 || result.pool.empty()) invalid("Pool name is required");
  result.image = take(name, "/@:", &end);
  if (end == '/') {
    result.name_space = std::move(result.image);
    result.image = take(name, "@:", &end);
  }
  if (end == '@') result.snapshot = take(name, ":", &end);
  for (auto& [key, value] : split_settings(name)) {
    if (key == "conf")
      result.conf = std::move(value);
    else if (key == "id")
      result.user = std::move(value);
    else
      result.settings.emplace_back(std::move(key), std::move(value));
  }
  return result;
}

std::string join_settings(const std::vector<Setting>& settings) {
  std::string result;
  for (const auto& [key, value] : settings)
    result += fmt::format("{}{}={}", result.empty() ? "" : ":", escaped(key), escaped(value));
  return result;
}

std::vector<Setting> split_settings(std::string_view text) {
  std::vector<Setting> result;
  while (!text.empty()) {
    char end = 0;
    std::string key = take(text, "=:", &end);
    if (end != '=') invalid("conf option " + key + " has no value");
    result.emplace_back(std::move(key), take(text, ":", &end));
  }
  return result;
}

}  // namespace cairn::rbd
