#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/value.h"

namespace cairn {

enum class OptionType { kString, kBool, kNumber, kSize };

// One row of a schema: the single source for parsing, `-o help`, JSON names and the reference.
struct OptionSpec {
  std::string_view name;
  OptionType type = OptionType::kString;
  std::string_view default_text;  // what creation announces when nothing is given; empty: nothing
  std::string_view help;
  bool extension = false;  // known only where extensions are offered
};
using OptionSchema = std::vector<OptionSpec>;

// A flat map of dotted keys to scalars: the form to which `-o`, --image-opts, `json:{…}` and option
// trees are all brought. Reading a key marks it as used, so that a driver's opener can report what
// nobody understood.
class Options {
 public:
  // Flattens an object; arrays become numbered parts. Throws kInvalid when VALUE is no object.
  static Options from_value(const Value& value);
  // "key=value,key2=a,,b": a doubled comma stands for one. A bare key means on, a bare "nokey" off;
  // FIRST_KEY, when not empty, takes a first word without '='. Throws kInvalid. BARE gets the other
  // words without one.
  static Options parse_list(std::string_view text, std::string_view first_key = {},
                            std::vector<std::string>* bare = nullptr);

  bool empty() const { return values_.empty(); }
  bool has(std::string_view key) const;
  // True when KEY itself or anything below "KEY." is there.
  bool has_tree(std::string_view key) const;
  void set(std::string_view key, Value value);
  void erase(std::string_view key);
  // Adds what OTHER has and this has not.
  void merge_missing(const Options& other);

  // Typed access; each throws kInvalid with QEMU's wording when the text does not fit.
  std::optional<std::string> string(std::string_view key) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<uint64_t> number(std::string_view key) const;
  std::optional<uint64_t> size(std::string_view key) const;
  bool is_null(std::string_view key) const;

  // Takes everything below "PREFIX." out, with the prefix cut off.
  Options take_tree(std::string_view prefix);
  // Keys that nobody has read, in byte order.
  std::vector<std::string> unused() const;
  void mark_used(std::string_view key) const;
  // All keys with values, in byte order.
  std::vector<std::pair<std::string, Value>> items() const;
  // The nested object again (dotted keys become objects; numbered parts stay names).
  Value to_value() const;

 private:
  struct Entry {
    Value value;
    mutable bool used = false;
  };
  std::map<std::string, Entry, std::less<>> values_;
};

}  // namespace cairn
