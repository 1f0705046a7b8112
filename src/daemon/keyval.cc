#include "daemon/keyval.h"

#include <algorithm>
#include <charconv>
#include <vector>

#include "base/error.h"

namespace cairn::daemon {
namespace {

constexpr size_t kMostKeyLength = 127;
constexpr size_t kMostElements = 1024;

bool is_index(std::string_view part) {
  return !part.empty() &&
         std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool is_name(std::string_view part) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  return !part.empty() && letter(part[0]) && std::all_of(part.begin(), part.end(), [&](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
}

Value* member_of(Value& object, std::string_view name) {
  for (Value::Member& member : *object.get_if<Value::Object>())
    if (member.first == name) return &member.second;
  return nullptr;
}

// Sets the member that KEY, a path, means.
void put_path(Value& root, std::string_view key, std::string_view value) {
  if (key.empty() || key.size() > kMostKeyLength)
    invalid("Invalid parameter '" + std::string(key) + "'");
  Value* at = &root;
  size_t begin = 0;
  while (true) {
    const size_t end = std::min(key.find('.', begin), key.size());
    const std::string_view part = key.substr(begin, end - begin);
    if (!is_name(part) && (begin == 0 || !is_index(part)))
      invalid("Invalid parameter '" + std::string(key.substr(0, end)) + "'");
    Value* next = member_of(*at, part);
    const bool last = end == key.size();
    if (next != nullptr && last == next->is_object())
      invalid("Parameters '" + std::string(key.substr(0, end)) + ".*' used inconsistently");
    if (last) {
      at->set(part, value);
      return;
    }
    at = next != nullptr ? next : &at->set(part, Value::object());
    begin = end + 1;
  }
}

// Objects whose members are numbers become arrays.
void make_arrays(Value& value, const std::string& path) {
  auto* members = value.get_if<Value::Object>();
  if (members == nullptr) return;
  size_t indices = 0;
  for (auto& [name, member] : *members) {
    make_arrays(member, path.empty() ? name : path + "." + name);
    if (is_index(name)) ++indices;
  }
  if (indices == 0) return;
  if (indices != members->size()) invalid("Parameters '" + path + ".*' used inconsistently");
  Value list = Value::array();
  for (size_t i = 0; i < indices; ++i) {
    Value* element = member_of(value, std::to_string(i));
    if (element == nullptr || i >= kMostElements)
      invalid("Parameter '" + path + "." + std::to_string(i) + "' missing");
    list.push_back(std::move(*element));
  }
  value = std::move(list);
}

}  // namespace

Keyval parse_keyval(std::string_view text, std::string_view implied_key) {
  Keyval result;
  if (text.starts_with('{')) {
    result.json = true;
    result.value = Value::parse(text);
    return result;
  }
  result.value = Value::object();
  bool first = true;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    const size_t equals = text.find('=');
    const bool bare = equals == std::string_view::npos || comma < equals;
    std::string key, value;
    if (bare) {
      std::string_view word = text.substr(0, std::min(comma, text.size()));
      if (word == "help" || word == "?") {
        result.help = true;
        text.remove_prefix(std::min(word.size() + 1, text.size()));
        continue;
      }
      if (!first || implied_key.empty())
        invalid("Expected '=' after parameter '" + std::string(word) + "'");
      key = implied_key;
    } else {
      key = text.substr(0, equals);
      text.remove_prefix(equals + 1);
    }
    first = false;
    // The value goes up to a single comma.
    size_t at = 0;
    for (; at < text.size(); ++at) {
      if (text[at] == ',') {
        if (at + 1 == text.size() || text[at + 1] != ',') break;
        ++at;
      }
      value.push_back(text[at]);
    }
    text.remove_prefix(std::min(at + 1, text.size()));
    put_path(result.value, key, value);
  }
  make_arrays(result.value, {});
  return result;
}

}  // namespace cairn::daemon
