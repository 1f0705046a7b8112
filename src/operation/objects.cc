#include "operation/objects.h"

#include "base/error.h"

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

}  // namespace cairn::operation
