#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/value.h"

namespace cairn {

// JSON values out of a stream of bytes of a peer that may send anything. A value is complete with
// its last brace; after bytes that are no JSON the stream continues at the next line, or the next
// brace, bracket, comma or colon; after more than kMostBytes, kMostTokens or kMostDepth, at the
// next line.
class JsonStream {
 public:
  static constexpr size_t kMostBytes = size_t{4} << 20;
  static constexpr size_t kMostTokens = size_t{1} << 18;
  static constexpr size_t kMostDepth = 256;

  struct Item {
    Value value;
    std::string error;  // not empty: there is no value; "JSON parse error, …"
  };

  // Adds BYTES to the input, of which next() takes them.
  void feed(std::string_view bytes) { input_.append(bytes); }
  // The stream has ended: what is incomplete is an error.
  void finish() { ended_ = true; }
  // The next value or error; nothing until more is fed.
  std::optional<Item> next();

 private:
  enum class State {
    kStart,
    kRecovery,  // after bytes that are no JSON
    kSkipping,  // the rest of a line that is too much
    kString,
    kEscape,
    kWord,
    kMinus,
    kZero,
    kDigits,
    kPoint,
    kFraction,
    kExponent,
    kExponentSign,
    kExponentDigits,
  };
  std::optional<Item> step(char c);
  std::optional<Item> begin(char c);
  std::optional<Item> in_number(char c);
  std::optional<Item> token(char structural = 0);
  Item stray(char c);
  Item complete();
  void reset();

  std::string input_;
  size_t at_ = 0;
  std::string text_;     // of the value that is being read
  size_t token_at_ = 0;  // where in TEXT_ the token begins
  size_t tokens_ = 0;
  long braces_ = 0, brackets_ = 0;
  char quote_ = 0;
  State state_ = State::kStart;
  bool ended_ = false;
};

}  // namespace cairn
