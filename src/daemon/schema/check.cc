#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>

#include "base/error.h"
#include "daemon/schema/schema.h"

namespace cairn::daemon {
namespace {

[[noreturn]] void wrong_type(const std::string& path, std::string_view expected) {
  invalid("Invalid parameter type for '" + path + "', expected: " + std::string(expected));
}

// One argument with all that is inside of it.
class Checker {
 public:
  explicit Checker(Form form) : form_(form) {}

  Value check(std::string_view type, Value value, const std::string& path) const {
    if (type.starts_with('[')) return array(type.substr(1, type.size() - 2), value, path);
    if (type == "any") return value;
    if (type == "str") return text(std::move(value), path);
    if (type == "bool") return boolean(value, path);
    if (type == "null") {
      if (!value.is_null()) wrong_type(path, "null");
      return value;
    }
    if (type == "number") return number(value, path);
    if (type == "int" || type == "uint16" || type == "uint32") return integer(type, value, path);
    const SchemaType& known = Schema::get().type(type);
    switch (known.kind) {
      case SchemaType::Kind::kEnum:
        return word(known, std::move(value), path);
      case SchemaType::Kind::kAlternate:
        return alternate(known, std::move(value), path);
      case SchemaType::Kind::kObject:
        return object(known, std::move(value), path);
    }
    return value;
  }

 private:
  std::string below(const std::string& path, std::string_view name) const {
    return path.empty() ? std::string(name) : path + "." + std::string(name);
  }
  // The reference names the member alone where a value is none of several.
  static std::string last_of(const std::string& path) {
    return path.substr(path.find_last_of('.') + 1);
  }
  std::string element(const std::string& path, size_t index) const {
    const std::string number = std::to_string(index);
    return form_ == Form::kJson ? path + "[" + number + "]" : path + "." + number;
  }

  Value array(std::string_view type, Value& value, const std::string& path) const {
    auto* items = value.get_if<Value::Array>();
    if (items == nullptr) wrong_type(path, "array");
    for (size_t i = 0; i < items->size(); ++i)
      (*items)[i] = check(type, std::move((*items)[i]), element(path, i));
    return std::move(value);
  }

  static Value text(Value value, const std::string& path) {
    if (value.get_if<std::string>() == nullptr) wrong_type(path, "string");
    return value;
  }

  Value boolean(const Value& value, const std::string& path) const {
    const auto* written = value.get_if<std::string>();
    if (form_ == Form::kKeyval && written != nullptr) {
      for (const std::string_view yes : {"on", "yes", "true", "y"})
        if (*written == yes) return true;
      for (const std::string_view no : {"off", "no", "false", "n"})
        if (*written == no) return false;
      invalid("Parameter '" + path + "' expects 'on' or 'off'");
    }
    if (value.get_if<bool>() == nullptr) wrong_type(path, "boolean");
    return value;
  }

  Value number(const Value& value, const std::string& path) const {
    const auto* written = value.get_if<std::string>();
    if (form_ == Form::kKeyval && written != nullptr) {
      double real = 0;
      const char* end = written->data() + written->size();
      const auto parsed = std::from_chars(written->data(), end, real);
      if (parsed.ec != std::errc() || parsed.ptr != end)
        invalid("Parameter '" + path + "' expects a number");
      return real;
    }
    if (!value.get_if<double>() && !value.get_if<int64_t>() && !value.get_if<uint64_t>())
      wrong_type(path, "number");
    return value;
  }

  // Decimal, hexadecimal and octal, as in C.
  static std::optional<int64_t> parse_integer(std::string_view written) {
    const bool negative = written.starts_with('-');
    std::string_view digits = written.substr(negative ? 1 : 0);
    int base = 10;
    if (digits.starts_with("0x") || digits.starts_with("0X")) {
      base = 16;
      digits.remove_prefix(2);
    } else if (digits.size() > 1 && digits.starts_with('0')) {
      base = 8;
    }
    uint64_t magnitude = 0;
    const auto parsed =
        std::from_chars(digits.data(), digits.data() + digits.size(), magnitude, base);
    if (digits.empty() || parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size() ||
        magnitude > uint64_t{INT64_MAX} + (negative ? 1 : 0))
      return std::nullopt;
    return static_cast<int64_t>(negative ? uint64_t{0} - magnitude : magnitude);
  }

  Value integer(std::string_view type, const Value& value, const std::string& path) const {
    std::optional<int64_t> whole;
    const auto* written = value.get_if<std::string>();
    if (form_ == Form::kKeyval && written != nullptr) {
      whole = parse_integer(*written);
      if (!whole) invalid("Parameter '" + path + "' expects integer");
    } else if (const auto* given = value.get_if<int64_t>()) {
      whole = *given;
    } else if (type != "int") {
      invalid("Parameter '" + path + "' expects uint64");
    } else {
      wrong_type(path, "integer");
    }
    const int64_t most = type == "uint16" ? UINT16_MAX : type == "uint32" ? UINT32_MAX : INT64_MAX;
    if (type != "int" && (*whole < 0 || *whole > most))
      invalid("Parameter '" + path + "' expects " + std::string(type) + "_t");
    return *whole;
  }

  static Value word(const SchemaType& type, Value value, const std::string& path) {
    const auto* written = value.get_if<std::string>();
    if (written == nullptr) wrong_type(path, "string");
    for (const SchemaValue& known : type.values)
      if (known.name == *written) return value;
    invalid("Parameter '" + last_of(path) + "' does not accept value '" + *written + "'");
  }

  Value alternate(const SchemaType& type, Value value, const std::string& path) const {
    for (const std::string_view one : type.types) {
      const bool is_null = one == "null";
      const bool is_text =
          one == "str" || (!is_null && Schema::get().type(one).kind == SchemaType::Kind::kEnum);
      const bool fits = is_null   ? value.is_null()
                        : is_text ? value.get_if<std::string>() != nullptr
                                  : value.is_object();
      if (fits) return check(one, std::move(value), path);
    }
    wrong_type(last_of(path), type.name);
  }

  // Checks the members that TYPE has itself and notes their names in KNOWN.
  void members(const SchemaType& type, Value& value, const std::string& path,
               std::vector<std::string_view>& known) const {
    for (const SchemaMember& member : type.members) {
      known.push_back(member.name);
      Value* given = nullptr;
      for (Value::Member& one : *value.get_if<Value::Object>())
        if (one.first == member.name) given = &one.second;
      if (given == nullptr && !member.optional)
        invalid("Parameter '" + below(path, member.name) + "' is missing");
      if (given != nullptr)
        *given = check(member.type, std::move(*given), below(path, member.name));
    }
    if (type.tag.empty()) return;
    const Value* tag = value.find(type.tag);
    const auto* chosen = tag == nullptr ? nullptr : tag->get_if<std::string>();
    if (chosen == nullptr) return;
    for (const SchemaCase& one : type.cases)
      if (one.tag_value == *chosen) members(Schema::get().type(one.type), value, path, known);
  }

  Value object(const SchemaType& type, Value value, const std::string& path) const {
    if (!value.is_object()) wrong_type(path, "object");
    std::vector<std::string_view> known;
    members(type, value, path, known);
    for (const auto& [name, unused] : *value.get_if<Value::Object>())
      if (std::find(known.begin(), known.end(), name) == known.end())
        invalid("Parameter '" + below(path, name) + "' is unexpected");
    return value;
  }

  Form form_;
};

}  // namespace

Value checked_value(std::string_view type, Value value, Form form, const std::string& path) {
  return Checker(form).check(type, std::move(value), path);
}

}  // namespace cairn::daemon
