#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace cairn {

// Where an output has the member NAME of an object: members are printed by ascending rank, of equal
// rank the later one first; those of kUnranked follow as they were added. Null: all as added.
using MemberOrder = int (*)(std::string_view name);
inline constexpr int kUnranked = 1 << 20;

// A JSON-shaped value: what `json:{…}` names and --object bring in and what the JSON outputs
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

  // The form of several lines: four blanks per level, code points outside of printable ASCII as
  // \uXXXX, members by ORDER; no final newline.
  std::string pretty(MemberOrder order = nullptr) const;
  // The one-line form with ", " and ": ".
  std::string compact(MemberOrder order = nullptr) const;
  // A scalar as the text an option would have: true → "true", 5 → "5".
  std::string scalar_text() const;

  // The members of OBJECT in the order in which the outputs have them.
  static std::vector<const Member*> ranked(const Object& object, MemberOrder order);

 private:
  std::variant<std::nullptr_t, bool, int64_t, uint64_t, double, std::string, Array, Object> data_;
};

}  // namespace cairn
