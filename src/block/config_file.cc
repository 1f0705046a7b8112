#include "block/config_file.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/error.h"

namespace cairn {
namespace {

constexpr std::string_view kBlanks = " \t\r";
constexpr size_t kMostName = 63, kMostValue = 1023;

void skip_blanks(std::string_view* line) {
  line->remove_prefix(std::min(line->find_first_not_of(kBlanks), line->size()));
}

// Takes a name off the front of LINE; empty when there is none.
std::string_view take_name(std::string_view* line) {
  const size_t end = std::min(line->find_first_of(" \t\r=]\"'#"), line->size());
  const std::string_view name = line->substr(0, end);
  line->remove_prefix(end);
  skip_blanks(line);
  return name;
}

class Parser {
 public:
  Parser(std::string_view text, const std::string& name) : text_(text), name_(name) {}

  std::vector<ConfigSection> parse() {
    while (!text_.empty()) {
      ++number_;
      const size_t end = std::min(text_.find('\n'), text_.size());
      std::string_view line = text_.substr(0, end);
      text_.remove_prefix(std::min(end + 1, text_.size()));
      skip_blanks(&line);
      if (line.empty() || line.front() == '#') continue;
      if (line.front() == '[')
        header(line);
      else
        value(line);
    }
    return std::move(sections_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    invalid(fmt::format("{}:{}: {}", name_, number_, what));
  }

  // What is in quotes at the front of LINE.
  std::string quoted(std::string_view* line, size_t most) const {
    const size_t end = line->starts_with('"') ? line->find('"', 1) : std::string_view::npos;
    if (end == std::string_view::npos) fail("a value in double quotes is missing");
    if (end - 1 > most) fail("a value is longer than " + std::to_string(most) + " characters");
    const std::string result(line->substr(1, end - 1));
    line->remove_prefix(end + 1);
    skip_blanks(line);
    return result;
  }

  void header(std::string_view line) {
    line.remove_prefix(1);
    skip_blanks(&line);
    ConfigSection section;
    section.line = number_;
    section.group = take_name(&line);
    if (section.group.empty() || section.group.size() > kMostName) fail("parse error");
    if (!line.starts_with(']')) section.id = quoted(&line, kMostName);
    if (!line.starts_with(']')) fail("parse error");
    sections_.push_back(std::move(section));
  }

  void value(std::string_view line) {
    if (sections_.empty()) fail("no group defined");
    const std::string key(take_name(&line));
    if (key.empty() || key.size() > kMostName || !line.starts_with('=')) fail("parse error");
    line.remove_prefix(1);
    skip_blanks(&line);
    sections_.back().values.set(key, quoted(&line, kMostValue));
  }

  std::string_view text_;
  const std::string& name_;
  unsigned number_ = 0;
  std::vector<ConfigSection> sections_;
};

}  // namespace

std::vector<ConfigSection> parse_config(std::string_view text, const std::string& name) {
  return Parser(text, name).parse();
}

}  // namespace cairn
