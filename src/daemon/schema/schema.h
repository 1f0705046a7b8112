#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/value.h"

namespace cairn::daemon {

using Features = std::vector<std::string_view>;

struct SchemaMember {
  std::string_view name;
  std::string_view type;
  bool optional = false;
  Features features = {};
};

struct SchemaCase {
  std::string_view tag_value;
  std::string_view type;
};

struct SchemaValue {
  std::string_view name;
  Features features = {};
};

struct SchemaType {
  enum class Kind { kObject, kEnum, kAlternate };
  Kind kind = Kind::kObject;
  std::string_view name;
  Features features = {};
  std::vector<SchemaMember> members = {};  // of an object
  std::string_view tag = {};               // of a union: the member that chooses the case
  std::vector<SchemaCase> cases = {};
  std::vector<SchemaValue> values = {};      // of an enum
  std::vector<std::string_view> types = {};  // of an alternate
};

struct SchemaEntry {
  bool event = false;
  std::string_view name;
  std::string_view argument;  // the type of its arguments, or of an event's data
  std::string_view result = {};
  Features features = {};
};

// Everything that the tables hold. Immutable; from any thread.
class Schema {
 public:
  // Made by the first call.
  static const Schema& get();

  // Commands and events, in the order of the table.
  const std::vector<SchemaEntry>& entries() const { return entries_; }
  // Null when there is none.
  const SchemaEntry* find_command(std::string_view name) const;
  // NAME is that of a row.
  const SchemaType& type(std::string_view name) const;

 private:
  Schema();
  void add_rows(std::string_view rows);
  void add_row(std::string_view row);
  std::vector<SchemaEntry> entries_;
  std::unordered_map<std::string_view, SchemaType> types_;
  std::vector<std::string> rows_;  // joined lines, to which all names refer
};

// How the arguments were written.
enum class Form {
  kJson,    // with the types of JSON
  kKeyval,  // as KEY=VALUE of a command line: all scalars are texts
};

// VALUE as the type of that name says, with texts of kKeyval made what they stand for. Throws
// kInvalid with QEMU's wording, which names the parameter with its path; PATH is that of VALUE.
Value checked_value(std::string_view type, Value value, Form form, const std::string& path = {});

// The reply of query-qmp-schema: the commands and events that SHOWN accepts, and all types that
// they use, under numbers for names.
Value introspect(const std::function<bool(const SchemaEntry&)>& shown);

}  // namespace cairn::daemon
