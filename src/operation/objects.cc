#include "operation/objects.h"

#include "base/error.h"
#include "block/throttle_limits.h"

namespace cairn::operation {
namespace {

// JSON has types, unlike a list of options: throws where one is not what the property takes.
void check_types(const Value& object) {
  const auto expect = [&](const std::string& name, std::string_view type) {
    const Value* value = object.find(name);
    if (value == nullptr) return;
    const bool fits = type == "integer"   ? value->get_if<int64_t>() || value->get_if<uint64_t>()
                      : type == "boolean" ? value->get_if<bool>() != nullptr
                                          : value->get_if<std::string>() != nullptr;
    if (!fits)
      throw Error(ErrorKind::kInvalid,
                  "Invalid parameter type for '" + name + "', expected: " + std::string(type));
  };
  expect("qom-type", "string");
  const Value* type = object.find("qom-type");
  if (type == nullptr) return;
  expect("id", "string");
  for (const ObjectType& known : object_types()) {
    if (known.name != *type->get_if<std::string>()) continue;
    for (const ObjectProperty& property : known.properties) {
      const std::string_view takes = property.type;
      if (takes == "ThrottleLimits" || takes == "QAuthZListRule") continue;
      expect(std::string(property.name), takes == "int"    ? "integer"
                                         : takes == "bool" ? "boolean"
                                                           : "string");
    }
  }
}

}  // namespace

Options parse_object(const std::string& definition) {
  if (!definition.starts_with("{")) return Options::parse_list(definition, "qom-type");
  const Value object = Value::parse(definition);
  if (object.is_object()) check_types(object);
  return Options::from_value(object);
}

void add_throttle_group(Context& context, const std::string& id, const std::string& limits) {
  try {
    const Options given = Options::parse_list(limits);
    if (given.items().empty()) invalid("no limit is given");
    Options properties;
    properties.set("id", id);
    for (const auto& [key, value] : given.items()) {
      if (key == "share" || key == "count-discards" || key == "count-flushes")
        properties.set(key, value);
      else if (ThrottleLimits::knows(key))
        properties.set("limits." + key, given.size(key).value_or(0));
      else
        throw Error(ErrorKind::kInvalid, "there is no limit '" + key + "'")
            .hint(
                "Limits are bps-total, iops-total and the same for read and write, with -max for "
                "bursts, and -max-length; iops-size, share, count-discards, count-flushes.");
    }
    context.add_object("throttle-group", std::move(properties));
  } catch (Error& error) {
    throw error.context("the limits '" + limits + "'");
  }
}

}  // namespace cairn::operation
