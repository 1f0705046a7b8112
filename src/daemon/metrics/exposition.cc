#include "daemon/metrics/exposition.h"

#include <fmt/core.h>

namespace cairn::daemon {

void Exposition::begin(std::string_view name, std::string_view type, std::string_view help) {
  name_ = name;
  text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

void Exposition::open(Labels labels, std::string_view suffix) {
  text_ += name_;
  text_ += suffix;
  char before = '{';
  for (const auto& [label, value] : labels) {
    text_ += before;
    before = ',';
    text_ += label;
    text_ += "=\"";
    for (const char c : value) {
      if (c == '\n') {
        text_ += "\\n";
        continue;
      }
      if (c == '"' || c == '\\') text_ += '\\';
      text_ += c;
    }
    text_ += '"';
  }
  text_ += labels.size() == 0 ? " " : "} ";
}

void Exposition::sample(Labels labels, uint64_t value, std::string_view suffix) {
  open(labels, suffix);
  text_ += fmt::format("{}\n", value);
}

void Exposition::sample_seconds(Labels labels, uint64_t nanoseconds, std::string_view suffix) {
  open(labels, suffix);
  text_ += seconds_text(nanoseconds) + "\n";
}

std::string seconds_text(uint64_t nanoseconds) {
  constexpr uint64_t kSecond = 1'000'000'000;
  std::string text = fmt::format("{}.{:09}", nanoseconds / kSecond, nanoseconds % kSecond);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

}  // namespace cairn::daemon
