#include <unordered_map>

#include "daemon/schema/schema.h"

namespace cairn::daemon {
namespace {

std::string_view json_type_of(std::string_view builtin) {
  if (builtin == "str") return "string";
  if (builtin == "bool") return "boolean";
  if (builtin == "any") return "value";
  return builtin;
}

Value feature_list(const Features& features) {
  Value list = Value::array();
  for (const std::string_view feature : features) list.push_back(feature);
  return list;
}

Value with_features(Value entry, const Features& features) {
  if (!features.empty()) entry.set("features", feature_list(features));
  return entry;
}

// Types in the order of their first use; those that are no builtins are numbered in that order.
class Introspection {
 public:
  void add(const SchemaEntry& entry) {
    Value shown = Value::object();
    shown.set("name", entry.name);
    shown.set("meta-type", entry.event ? "event" : "command");
    shown.set("arg-type", use(entry.argument));
    if (!entry.event) shown.set("ret-type", use(entry.result));
    reply_.push_back(with_features(std::move(shown), entry.features));
  }

  Value finish() {
    // Showing one may bring more.
    for (size_t i = 0; i < used_.size(); ++i) reply_.push_back(show(std::string(used_[i])));
    return std::move(reply_);
  }

 private:
  static std::string_view builtin(std::string_view type) {
    if (type == "uint16" || type == "uint32") return "int";
    for (const std::string_view one : {"str", "int", "number", "bool", "null", "any"})
      if (type == one) return one;
    return {};
  }

  // The name by which TYPE is referred to.
  std::string use(std::string_view type) {
    const std::string_view plain = builtin(type);
    const std::string key(plain.empty() ? type : plain);
    const auto [at, fresh] = names_.emplace(key, std::string());
    if (!fresh) return at->second;
    used_.push_back(key);
    std::string name;
    if (!plain.empty())
      name = key;
    else if (key.starts_with('['))
      name = "[" + use(std::string_view(key).substr(1, key.size() - 2)) + "]";
    else
      name = std::to_string(next_++);
    names_[key] = name;
    return name;
  }

  Value members_of(const SchemaType& type) {
    Value list = Value::array();
    for (const SchemaMember& member : type.members) {
      Value one = Value::object();
      one.set("name", member.name);
      if (member.optional) one.set("default", nullptr);
      one.set("type", use(member.type));
      list.push_back(with_features(std::move(one), member.features));
    }
    return list;
  }

  Value show_object(const SchemaType& type, Value entry) {
    entry.set("meta-type", "object");
    entry.set("members", members_of(type));
    if (type.tag.empty()) return entry;
    entry.set("tag", type.tag);
    Value list = Value::array();
    for (const SchemaCase& one : type.cases) {
      Value variant = Value::object();
      variant.set("case", one.tag_value);
      variant.set("type", use(one.type));
      list.push_back(std::move(variant));
    }
    entry.set("variants", std::move(list));
    return entry;
  }

  static Value show_enum(const SchemaType& type, Value entry) {
    entry.set("meta-type", "enum");
    Value members = Value::array();
    Value values = Value::array();
    for (const SchemaValue& value : type.values) {
      Value one = Value::object();
      one.set("name", value.name);
      members.push_back(with_features(std::move(one), value.features));
      values.push_back(value.name);
    }
    entry.set("members", std::move(members));
    entry.set("values", std::move(values));
    return entry;
  }

  Value show_alternate(const SchemaType& type, Value entry) {
    entry.set("meta-type", "alternate");
    Value list = Value::array();
    for (const std::string_view one : type.types) {
      Value member = Value::object();
      member.set("type", use(one));
      list.push_back(std::move(member));
    }
    entry.set("members", std::move(list));
    return entry;
  }

  Value show(const std::string& key) {
    Value entry = Value::object();
    entry.set("name", names_[key]);
    if (!builtin(key).empty()) {
      entry.set("meta-type", "builtin");
      entry.set("json-type", json_type_of(key));
      return entry;
    }
    if (key.starts_with('[')) {
      entry.set("meta-type", "array");
      entry.set("element-type", use(std::string_view(key).substr(1, key.size() - 2)));
      return entry;
    }
    const SchemaType& type = Schema::get().type(key);
    if (type.kind == SchemaType::Kind::kObject) entry = show_object(type, std::move(entry));
    if (type.kind == SchemaType::Kind::kEnum) entry = show_enum(type, std::move(entry));
    if (type.kind == SchemaType::Kind::kAlternate) entry = show_alternate(type, std::move(entry));
    return with_features(std::move(entry), type.features);
  }

  Value reply_ = Value::array();
  std::vector<std::string> used_;
  std::unordered_map<std::string, std::string> names_;
  unsigned next_ = 0;
};

}  // namespace

Value introspect(const std::function<bool(const SchemaEntry&)>& shown) {
  Introspection reply;
  for (const SchemaEntry& entry : Schema::get().entries())
    if (shown(entry)) reply.add(entry);
  return reply.finish();
}

}  // namespace cairn::daemon
