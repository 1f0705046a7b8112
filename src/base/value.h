#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace cairn {

// A JSON-shaped value: what `json:{…}` names, --object and QMP bring in and what the JSON outputs
// print. Objects keep the order in which members were added.
class Value {
 public:
  using Array = std::vector<Value>;
  using Member = std::pair<std::string, Value>;
  using Object = std::vector<Member>;

  Value() : data_(nullptr) {}
  Value(std::nullptr_t) : data_(nullptr) {}
  Value(bool value) : data_(value) {}
  Value(int value) : data_(int64_t{value}) {}
  Value(unsigned value) : data_(int64_t{value}) {}
  Value(int64_t value) : data_(value) {}
  Value(uint64_t value) : data_(value) {}
  Value(double value) : data_(value) {}
  Value(const char* value) : data_(std::string(value)) {}
  Value(std::string_view value) : data_(std::string(value)) {}
  Value(std::string value) : data_(std::move(value)) {}
  Value(Array value) : data_(std::move(value)) {}
  Value(Object value) : data_(std::move(value)) {}
  static Value array() { return Value(Array{}); }
  static Value object() { return Value(Object{}); }

  bool is_null() const { return std::holds_alternative<std::nullptr_t>(data_); }
  bool is_array() const { return std::holds_alternative<Array>(data_); }
  bool is_object() const { return std::holds_alternative<Object>(data_); }
  template <class T>
  const T* get_if() const {
    return std::get_if<T>(&data_);
  }
  template <class T>
  T* get_if() {
    return std::get_if<T>(&data_);
  }

  // Members of an object. set() replaces or appends; find() gives null when there is none.
  Value& set(std::string_view key, Value value);
  const Value* find(std::string_view key) const;
  // Appends to an array.
  Value& push_back(Value value);

  // Parses the JSON that QEMU accepts: strings in double or single quotes, one value. Throws
  // kInvalid with QEMU's wording ("JSON parse error, …").
  static Value parse(std::string_view text);

  // QEMU's pretty form: four blanks per level, members in the fixed rank of its tools, code points
  // outside of printable ASCII as \uXXXX; no final newline.
  std::string pretty() const;
  // The one-line form with ", " and ": ", members in the same order.
  std::string compact() const;
  // A scalar as the text an option would have: true → "true", 5 → "5".
  std::string scalar_text() const;

  // The members of an object in the order that the outputs use.
  static std::vector<const Member*> ranked(const Object& object);

 private:
  std::variant<std::nullptr_t, bool, int64_t, uint64_t, double, std::string, Array, Object> data_;
};

}  // namespace cairn
