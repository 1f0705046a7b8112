#include "daemon/schema/schema.h"

#include <algorithm>
#include <cassert>

#include "daemon/schema/table.h"

namespace cairn::daemon {
namespace {

// "NAME{feature,…}" gives NAME.
std::string_view take_features(std::string_view word, Features& features) {
  const size_t open = word.find('{');
  if (open == std::string_view::npos) return word;
  std::string_view list = word.substr(open + 1, word.size() - open - 2);
  while (!list.empty()) {
    const size_t end = std::min(list.find(','), list.size());
    features.push_back(list.substr(0, end));
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return word.substr(0, open);
}

std::vector<std::string_view> words_of(std::string_view row) {
  std::vector<std::string_view> words;
  while (!row.empty()) {
    const size_t end = std::min(row.find(' '), row.size());
    if (end != 0) words.push_back(row.substr(0, end));
    row.remove_prefix(std::min(end + 1, row.size()));
  }
  return words;
}

SchemaType object_of(const std::vector<std::string_view>& words) {
  SchemaType type;
  type.name = take_features(words[1], type.features);
  size_t at = 2;
  for (; at < words.size() && words[at] != "by"; ++at) {
    SchemaMember member;
    const std::string_view word = take_features(words[at], member.features);
    const size_t colon = word.find(':');
    member.name = word.substr(0, colon);
    member.type = word.substr(colon + 1);
    member.optional = member.name.ends_with('?');
    if (member.optional) member.name.remove_suffix(1);
    type.members.push_back(member);
  }
  if (at == words.size()) return type;
  type.tag = words[at + 1];
  for (at += 2; at < words.size(); ++at) {
    const size_t equals = words[at].find('=');
    type.cases.push_back({words[at].substr(0, equals), words[at].substr(equals + 1)});
  }
  return type;
}

SchemaType named_of(const std::vector<std::string_view>& words) {
  SchemaType type;
  type.kind = words[0] == "enum" ? SchemaType::Kind::kEnum : SchemaType::Kind::kAlternate;
  type.name = take_features(words[1], type.features);
  for (size_t at = 2; at < words.size(); ++at) {
    SchemaValue value;
    value.name = take_features(words[at], value.features);
    if (type.kind == SchemaType::Kind::kEnum)
      type.values.push_back(value);
    else
      type.types.push_back(value.name);
  }
  return type;
}

}  // namespace

const Schema& Schema::get() {
  static const Schema schema;
  return schema;
}

Schema::Schema() {
  for (const char* rows : {kCommandRows, kTypeRows, kMoreTypeRows}) add_rows(rows);
  // The names refer to the rows, which must not move any more.
  for (const std::string& row : rows_) add_row(row);
}

void Schema::add_rows(std::string_view rows) {
  while (!rows.empty()) {
    const size_t end = std::min(rows.find('\n'), rows.size());
    const std::string_view line = rows.substr(0, end);
    if (line.starts_with(' '))
      rows_.back().append(line);
    else if (!line.empty())
      rows_.emplace_back(line);
    rows.remove_prefix(std::min(end + 1, rows.size()));
  }
}

void Schema::add_row(std::string_view row) {
  const auto words = words_of(row);
  const std::string_view kind = words[0];
  if (kind == "command" || kind == "event") {
    SchemaEntry entry{.event = kind == "event", .name = words[1], .argument = words[2]};
    if (!entry.event) entry.result = words[3];
    if (words.back().starts_with('{')) take_features(words.back(), entry.features);
    entries_.push_back(entry);
    return;
  }
  SchemaType type = kind == "object" ? object_of(words) : named_of(words);
  const std::string_view name = type.name;
  types_.emplace(name, std::move(type));
}

const SchemaEntry* Schema::find_command(std::string_view name) const {
  for (const SchemaEntry& entry : entries_)
    if (!entry.event && entry.name == name) return &entry;
  return nullptr;
}

const SchemaType& Schema::type(std::string_view name) const {
  const auto found = types_.find(name);
  assert(found != types_.end());
  return found->second;
}

}  // namespace cairn::daemon
