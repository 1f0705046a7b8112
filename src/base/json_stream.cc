#include "base/json_stream.h"

#include "base/error.h"

namespace cairn {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_structural(char c) { return std::string_view("{}[],:").find(c) != std::string_view::npos; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return c >= 'a' && c <= 'z'; }
// Bytes that no UTF-8 text has. A client of QMP sends 0xff to begin afresh.
bool is_never(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte == 0xc0 || byte == 0xc1 || byte >= 0xf5;
}
bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20; }

}  // namespace

void JsonStream::reset() {
  text_.clear();
  text_.shrink_to_fit();
  token_at_ = tokens_ = 0;
  braces_ = brackets_ = 0;
  state_ = State::kStart;
}

std::optional<JsonStream::Item> JsonStream::next() {
  while (at_ < input_.size()) {
    const char c = input_[at_++];
    std::optional<Item> item = step(c);
    if (item) return item;
  }
  input_.clear();
  at_ = 0;
  if (!ended_ || state_ == State::kRecovery || state_ == State::kSkipping) return std::nullopt;
  ended_ = false;
  if (state_ != State::kStart) {
    std::optional<Item> item;
    if (state_ == State::kString || state_ == State::kEscape || state_ == State::kMinus)
      item = Item{{}, "JSON parse error, premature EOI"};
    else
      item = token();
    if (item) {
      reset();
      return item;
    }
  }
  if (text_.empty()) return std::nullopt;
  reset();
  return Item{{}, "JSON parse error, premature EOI"};
}

// What was read is no token once C is part of it.
JsonStream::Item JsonStream::stray(char c) {
  std::string token = text_.substr(token_at_);
  token.push_back(c);
  reset();
  state_ = State::kRecovery;
  return {{}, "JSON parse error, stray '" + token + "'"};
}

JsonStream::Item JsonStream::complete() {
  Item item;
  try {
    item.value = Value::parse(text_);
  } catch (const Error& error) {
    item.error = error.message();
  }
  reset();
  return item;
}

// The token at the end of TEXT_ has ended; STRUCTURAL is it when it is one character.
std::optional<JsonStream::Item> JsonStream::token(char structural) {
  state_ = State::kStart;
  ++tokens_;
  if (structural == '{') ++braces_;
  if (structural == '}') --braces_;
  if (structural == '[') ++brackets_;
  if (structural == ']') --brackets_;
  const char* limit = nullptr;
  if (tokens_ > kMostTokens) limit = "JSON token count limit exceeded";
  if (text_.size() > kMostBytes) limit = "JSON token size limit exceeded";
  if (braces_ + brackets_ > static_cast<long>(kMostDepth))
    limit = "JSON nesting depth limit exceeded";
  if (limit != nullptr) {
    reset();
    state_ = State::kSkipping;
    return Item{{}, limit};
  }
  if (braces_ < 0 || brackets_ < 0 || (braces_ == 0 && brackets_ == 0)) return complete();
  text_.push_back(' ');
  return std::nullopt;
}

std::optional<JsonStream::Item> JsonStream::begin(char c) {
  if (is_space(c)) return std::nullopt;
  token_at_ = text_.size();
  if (is_structural(c)) {
    text_.push_back(c);
    return token(c);
  }
  if (c == '"' || c == '\'') {
    quote_ = c;
    state_ = State::kString;
  } else if (c == '-') {
    state_ = State::kMinus;
  } else if (c == '0') {
    state_ = State::kZero;
  } else if (is_digit(c)) {
    state_ = State::kDigits;
  } else if (is_letter(c)) {
    state_ = State::kWord;
  } else {
    return stray(c);
  }
  text_.push_back(c);
  return std::nullopt;
}

std::optional<JsonStream::Item> JsonStream::in_number(char c) {
  const bool exponent = c == 'e' || c == 'E';
  std::optional<State> next;
  switch (state_) {
    case State::kMinus:
      if (is_digit(c)) next = c == '0' ? State::kZero : State::kDigits;
      break;
    case State::kZero:
    case State::kDigits:
      if (is_digit(c) && state_ == State::kDigits) next = State::kDigits;
      if (c == '.') next = State::kPoint;
      if (exponent) next = State::kExponent;
      break;
    case State::kPoint:
    case State::kFraction:
      if (is_digit(c)) next = State::kFraction;
      if (exponent && state_ == State::kFraction) next = State::kExponent;
      break;
    case State::kExponent:
      if (c == '+' || c == '-') next = State::kExponentSign;
      if (is_digit(c)) next = State::kExponentDigits;
      break;
    default:
      if (is_digit(c)) next = State::kExponentDigits;
  }
  if (next) {
    state_ = *next;
    text_.push_back(c);
    return std::nullopt;
  }
  const bool whole = state_ == State::kZero || state_ == State::kDigits ||
                     state_ == State::kFraction || state_ == State::kExponentDigits;
  if (!whole || is_digit(c)) return stray(c);
  --at_;  // C begins the next token
  return token();
}

std::optional<JsonStream::Item> JsonStream::step(char c) {
  if (text_.size() - token_at_ > kMostBytes) return token();
  switch (state_) {
    case State::kRecovery:
      if (!is_structural(c) && c != '\n') return std::nullopt;
      state_ = State::kStart;
      return begin(c);
    case State::kSkipping:
      if (c == '\n' || is_never(c)) state_ = State::kStart;
      return std::nullopt;
    case State::kStart:
      return begin(c);
    case State::kString:
      if (is_control(c) || is_never(c)) return stray(c);
      text_.push_back(c);
      if (c == '\\') state_ = State::kEscape;
      if (c == quote_) return token();
      return std::nullopt;
    case State::kEscape:
      if (is_control(c) || is_never(c)) return stray(c);
      text_.push_back(c);
      state_ = State::kString;
      return std::nullopt;
    case State::kWord:
      if (!is_letter(c)) {
        --at_;
        return token();
      }
      text_.push_back(c);
      return std::nullopt;
    default:
      return in_number(c);
  }
}

}  // namespace cairn
