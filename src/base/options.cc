#include "base/options.h"

#include <cerrno>
#include <cstdlib>

#include "base/error.h"
#include "base/size.h"

namespace cairn {
namespace {

void flatten(const Value& value, const std::string& prefix, Options& out) {
  const std::string dot = prefix.empty() ? "" : prefix + ".";
  if (const auto* members = value.get_if<Value::Object>()) {
    for (const auto& [key, member] : *members) flatten(member, dot + key, out);
  } else if (const auto* items = value.get_if<Value::Array>()) {
    for (size_t i = 0; i < items->size(); ++i) flatten((*items)[i], dot + std::to_string(i), out);
  } else {
    out.set(prefix, value);
  }
}

}  // namespace

Options Options::from_value(const Value& value) {
  if (!value.is_object()) throw Error(ErrorKind::kInvalid, "Invalid JSON object given");
  Options result;
  flatten(value, {}, result);
  return result;
}

Options Options::parse_list(std::string_view text, std::string_view first_key,
                            std::vector<std::string>* bare) {
  Options result;
  bool first = true;
  size_t at = 0;
  while (at < text.size()) {
    // The word up to a single comma; two commas stand for one.
    std::string word;
    size_t equals = std::string::npos;
    for (; at < text.size(); ++at) {
      if (text[at] == ',') {
        if (at + 1 < text.size() && text[at + 1] == ',') {
          ++at;
        } else {
          break;
        }
      }
      if (text[at] == '=' && equals == std::string::npos) equals = word.size();
      word.push_back(text[at]);
    }
    ++at;
    if (equals == std::string::npos) {
      const bool keyless = first && !first_key.empty();
      if (bare != nullptr && !keyless) bare->push_back(word);
      if (keyless)
        result.set(first_key, word);
      else if (word.starts_with("no") && word.size() > 2)
        result.set(word.substr(2), "off");
      else
        result.set(word, "on");
    } else {
      result.set(word.substr(0, equals), word.substr(equals + 1));
    }
    first = false;
  }
  return result;
}

bool Options::has(std::string_view key) const { return values_.find(key) != values_.end(); }

bool Options::has_tree(std::string_view key) const {
  if (has(key)) return true;
  const std::string dot = std::string(key) + ".";
  const auto at = values_.lower_bound(dot);
  return at != values_.end() && at->first.starts_with(dot);
}

void Options::set(std::string_view key, Value value) {
  values_.insert_or_assign(std::string(key), Entry{std::move(value), false});
}

void Options::erase(std::string_view key) {
  if (const auto found = values_.find(key); found != values_.end()) values_.erase(found);
}

void Options::merge_missing(const Options& other) {
  for (const auto& [key, entry] : other.values_) values_.try_emplace(key, entry);
}

std::optional<std::string> Options::string(std::string_view key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return std::nullopt;
  found->second.used = true;
  if (const auto* flag = found->second.value.get_if<bool>()) return *flag ? "on" : "off";
  return found->second.value.scalar_text();
}

std::optional<bool> Options::boolean(std::string_view key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return std::nullopt;
  found->second.used = true;
  if (const auto* flag = found->second.value.get_if<bool>()) return *flag;
  const std::string text = found->second.value.scalar_text();
  if (text == "on" || text == "yes" || text == "true" || text == "y") return true;
  if (text == "off" || text == "no" || text == "false" || text == "n") return false;
  throw Error(ErrorKind::kInvalid, "Parameter '" + std::string(key) + "' expects 'on' or 'off'");
}

std::optional<uint64_t> Options::number(std::string_view key) const {
  const auto text = string(key);
  if (!text) return std::nullopt;
  errno = 0;
  char* end = nullptr;
  const uint64_t value = std::strtoull(text->c_str(), &end, 0);
  if (errno == ERANGE)
    throw Error(ErrorKind::kInvalid,
                "Value '" + *text + "' is too large for parameter '" + std::string(key) + "'");
  if (text->empty() || *end != 0)
    throw Error(ErrorKind::kInvalid, "Parameter '" + std::string(key) + "' expects a number");
  return value;
}

std::optional<uint64_t> Options::size(std::string_view key) const {
  const auto text = string(key);
  if (!text) return std::nullopt;
  uint64_t value = 0;
  switch (parse_size(*text, &value)) {
    case SizeError::kNone:
      return value;
    case SizeError::kRange:
      throw Error(ErrorKind::kInvalid,
                  "Value '" + *text + "' is out of range for parameter '" + std::string(key) + "'");
    case SizeError::kSyntax:
      break;
  }
  throw Error(ErrorKind::kInvalid,
              "Parameter '" + std::string(key) + "' expects a non-negative number below 2^64")
      .hint("Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-")
      .hint("and exabytes, respectively.");
}

bool Options::is_null(std::string_view key) const {
  const auto found = values_.find(key);
  return found != values_.end() && found->second.value.is_null();
}

Options Options::take_tree(std::string_view prefix) {
  Options result;
  const std::string dot = std::string(prefix) + ".";
  auto at = values_.lower_bound(dot);
  while (at != values_.end() && at->first.starts_with(dot)) {
    result.values_.emplace(at->first.substr(dot.size()), at->second);
    at = values_.erase(at);
  }
  return result;
}

std::vector<std::string> Options::unused() const {
  std::vector<std::string> result;
  for (const auto& [key, entry] : values_)
    if (!entry.used) result.push_back(key);
  return result;
}

void Options::mark_used(std::string_view key) const {
  if (const auto found = values_.find(key); found != values_.end()) found->second.used = true;
}

std::vector<std::pair<std::string, Value>> Options::items() const {
  std::vector<std::pair<std::string, Value>> result;
  for (const auto& [key, entry] : values_) result.emplace_back(key, entry.value);
  return result;
}

Value Options::to_value() const {
  Value root = Value::object();
  for (const auto& [key, entry] : values_) {
    Value* place = &root;
    size_t begin = 0;
    for (size_t dot = key.find('.'); dot != std::string::npos; dot = key.find('.', begin)) {
      const std::string part = key.substr(begin, dot - begin);
      auto& members = *place->get_if<Value::Object>();
      Value* next = nullptr;
      for (auto& member : members)
        if (member.first == part) next = &member.second;
      if (next == nullptr || !next->is_object()) next = &place->set(part, Value::object());
      place = next;
      begin = dot + 1;
    }
    place->set(key.substr(begin), entry.value);
  }
  return root;
}

}  // namespace cairn
