#include "base/value.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string>
#include <unordered_set>

#include "base/error.h"

namespace cairn {

Value& Value::set(std::string_view key, Value value) {
  auto& members = std::get<Object>(data_);
  for (Member& member : members) {
    if (member.first == key) {
      member.second = std::move(value);
      return member.second;
    }
  }
  members.emplace_back(std::string(key), std::move(value));
  return members.back().second;
}

const Value* Value::find(std::string_view key) const {
  if (const auto* members = get_if<Object>())
    for (const Member& member : *members)
      if (member.first == key) return &member.second;
  return nullptr;
}

Value& Value::push_back(Value value) {
  auto& items = std::get<Array>(data_);
  items.push_back(std::move(value));
  return items.back();
}

// --- parsing ---

namespace {

constexpr uint32_t kNoCodePoint = UINT32_MAX;

// One code point of UTF-8 at AT, which moves on by at least a byte.
uint32_t next_code_point(std::string_view text, size_t& at) {
  static constexpr uint32_t kLeast[] = {0, 0x80, 0x800, 0x10000};
  const auto lead = static_cast<unsigned char>(text[at++]);
  if (lead < 0x80) return lead;
  const unsigned more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
  if (lead < 0xc2 || lead > 0xf4) return kNoCodePoint;
  uint32_t code = lead & (0x3fu >> more);
  for (unsigned i = 0; i < more; ++i) {
    if (at == text.size() || (static_cast<unsigned char>(text[at]) & 0xc0) != 0x80)
      return kNoCodePoint;
    code = code << 6 | (static_cast<unsigned char>(text[at++]) & 0x3f);
  }
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  return code < kLeast[more] || code > 0x10ffff || surrogate ? kNoCodePoint : code;
}

bool well_formed(std::string_view text) {
  for (size_t at = 0; at < text.size();)
    if (next_code_point(text, at) == kNoCodePoint) return false;
  return true;
}

// JSON, with strings in double or single quotes.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Value whole() {
    Value value = parse(0);
    skip_space();
    if (at_ != text_.size()) throw Error(ErrorKind::kInvalid, "Expecting at most one JSON value");
    return value;
  }

 private:
  static constexpr unsigned kMaxDepth = 512;

  [[noreturn]] static void fail(const char* what) {
    throw Error(ErrorKind::kInvalid, std::string("JSON parse error, ") + what);
  }
  void skip_space() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r'))
      ++at_;
  }
  char peek() {
    skip_space();
    if (at_ == text_.size()) fail("premature EOI");
    return text_[at_];
  }
  bool take_word(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  Value parse(unsigned depth) {
    if (depth > kMaxDepth) fail("too deeply nested");
    const char c = peek();
    if (c == '{') return object(depth);
    if (c == '[') return array(depth);
    if (c == '"' || c == '\'') return string();
    if (c == '-' || (c >= '0' && c <= '9')) return number();
    if (take_word("true")) return true;
    if (take_word("false")) return false;
    if (take_word("null")) return nullptr;
    size_t end = at_;
    while (end < text_.size() && text_[end] >= 'a' && text_[end] <= 'z') ++end;
    if (end != at_)
      fail(("invalid keyword '" + std::string(text_.substr(at_, end - at_)) + "'").c_str());
    fail("expecting value");
  }

  // A key is looked for among a few; among many, in a set.
  static bool seen_before(const Value::Object& members, std::unordered_set<std::string>& keys,
                          const std::string& key) {
    constexpr size_t kFew = 16;
    if (members.size() == kFew)
      for (const Value::Member& member : members) keys.insert(member.first);
    if (members.size() >= kFew) return !keys.insert(key).second;
    return std::any_of(members.begin(), members.end(),
                       [&](const Value::Member& member) { return member.first == key; });
  }

  Value object(unsigned depth) {
    Value::Object members;
    std::unordered_set<std::string> keys;
    ++at_;
    if (peek() == '}') {
      ++at_;
      return members;
    }
    while (true) {
      const char quote = peek();
      if (quote != '"' && quote != '\'') {
        parse(depth + 1);  // what is no value at all is reported as that
        fail("key is not a string in object");
      }
      std::string key = string();
      if (peek() != ':') fail("missing : in object pair");
      ++at_;
      Value value = parse(depth + 1);
      if (seen_before(members, keys, key)) fail("duplicate key");
      members.emplace_back(std::move(key), std::move(value));
      const char next = peek();
      ++at_;
      if (next == '}') return members;
      if (next != ',') fail("expected separator in dict");
    }
  }

  Value array(unsigned depth) {
    Value result = Value::array();
    ++at_;
    if (peek() == ']') {
      ++at_;
      return result;
    }
    while (true) {
      result.push_back(parse(depth + 1));
      const char next = peek();
      ++at_;
      if (next == ']') return result;
      if (next != ',') fail("expected separator in list");
    }
  }

  uint32_t hex4() {
    if (text_.size() - at_ < 4) fail("premature EOI");
    uint32_t value = 0;
    const auto [end, error] =
        std::from_chars(text_.data() + at_, text_.data() + at_ + 4, value, 16);
    if (error != std::errc() || end != text_.data() + at_ + 4)
      fail("invalid escape sequence in string");
    at_ += 4;
    return value;
  }

  static void append_utf8(std::string& out, uint32_t code) {
    if (code < 0x80) {
      out.push_back(static_cast<char>(code));
    } else if (code < 0x800) {
      out.push_back(static_cast<char>(0xc0 | code >> 6));
      out.push_back(static_cast<char>(0x80 | (code & 0x3f)));
    } else if (code < 0x10000) {
      out.push_back(static_cast<char>(0xe0 | code >> 12));
      out.push_back(static_cast<char>(0x80 | (code >> 6 & 0x3f)));
      out.push_back(static_cast<char>(0x80 | (code & 0x3f)));
    } else {
      out.push_back(static_cast<char>(0xf0 | code >> 18));
      out.push_back(static_cast<char>(0x80 | (code >> 12 & 0x3f)));
      out.push_back(static_cast<char>(0x80 | (code >> 6 & 0x3f)));
      out.push_back(static_cast<char>(0x80 | (code & 0x3f)));
    }
  }

  std::string string() {
    const char quote = text_[at_++];
    std::string out;
    while (true) {
      if (at_ == text_.size()) fail("premature EOI");
      const char c = text_[at_++];
      if (c == quote) {
        if (!well_formed(out)) fail("invalid UTF-8 sequence in string");
        return out;
      }
      if (c != '\\') {
        out.push_back(c);
        continue;
      }
      if (at_ == text_.size()) fail("premature EOI");
      const char escape = text_[at_++];
      switch (escape) {
        case 'b':
          out.push_back('\b');
          break;
        case 'f':
          out.push_back('\f');
          break;
        case 'n':
          out.push_back('\n');
          break;
        case 'r':
          out.push_back('\r');
          break;
        case 't':
          out.push_back('\t');
          break;
        case 'u': {
          uint32_t code = hex4();
          if (code >= 0xd800 && code < 0xdc00 && take_word("\\u"))
            code = 0x10000 + ((code - 0xd800) << 10) + ((hex4() - 0xdc00) & 0x3ff);
          append_utf8(out, code);
          break;
        }
        case '"':
        case '\'':
        case '\\':
        case '/':
          out.push_back(escape);
          break;
        default:
          fail("invalid escape sequence in string");
      }
    }
  }

  Value number() {
    const size_t begin = at_;
    if (text_[at_] == '-') ++at_;
    bool real = false;
    while (at_ < text_.size() &&
           (isdigit(static_cast<unsigned char>(text_[at_])) ||
            std::string_view("+-.eE").find(text_[at_]) != std::string_view::npos)) {
      real = real || !isdigit(static_cast<unsigned char>(text_[at_]));
      ++at_;
    }
    const std::string_view digits = text_.substr(begin, at_ - begin);
    if (!real) {
      int64_t value = 0;
      auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
      if (error == std::errc() && end == digits.data() + digits.size()) return value;
      uint64_t large = 0;
      auto [end2, error2] = std::from_chars(digits.data(), digits.data() + digits.size(), large);
      if (error2 == std::errc() && end2 == digits.data() + digits.size()) return large;
    }
    double value = 0;
    auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size()) fail("invalid number");
    return value;
  }

  std::string_view text_;
  size_t at_ = 0;
};

void print_string(std::string& out, std::string_view text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  const auto escape = [&out](uint32_t unit) {
    out += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) out.push_back(kHex[unit >> shift & 0xf]);
  };
  out.push_back('"');
  for (size_t at = 0; at < text.size();) {
    uint32_t code = next_code_point(text, at);
    if (code == kNoCodePoint) code = 0xfffd;
    switch (code) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (code >= 0x20 && code < 0x7f) {
          out.push_back(static_cast<char>(code));
        } else if (code >= 0x10000) {
          escape(0xd800 + ((code - 0x10000) >> 10));
          escape(0xdc00 + ((code - 0x10000) & 0x3ff));
        } else {
          escape(code);
        }
    }
  }
  out.push_back('"');
}

void print(std::string& out, const Value& value, int indent, MemberOrder order) {
  const bool pretty = indent >= 0;
  const auto line = [&](int level) {
    if (!pretty) return;
    out.push_back('\n');
    out.append(static_cast<size_t>(level) * 4, ' ');
  };
  const int inner = pretty ? indent + 1 : -1;
  if (const auto* items = value.get_if<Value::Array>()) {
    out.push_back('[');
    bool first = true;
    for (const Value& item : *items) {
      if (!first) out += pretty ? "," : ", ";
      first = false;
      line(inner);
      print(out, item, inner, order);
    }
    line(indent);
    out.push_back(']');
  } else if (const auto* members = value.get_if<Value::Object>()) {
    out.push_back('{');
    bool first = true;
    for (const Value::Member* member : Value::ranked(*members, order)) {
      if (!first) out += pretty ? "," : ", ";
      first = false;
      line(inner);
      print_string(out, member->first);
      out += ": ";
      print(out, member->second, inner, order);
    }
    line(indent);
    out.push_back('}');
  } else if (const auto* text = value.get_if<std::string>()) {
    print_string(out, *text);
  } else if (value.is_null()) {
    out += "null";
  } else if (const auto* flag = value.get_if<bool>()) {
    out += *flag ? "true" : "false";
  } else {
    out += value.scalar_text();
  }
}

}  // namespace

Value Value::parse(std::string_view text) { return Parser(text).whole(); }

std::string Value::pretty(MemberOrder order) const {
  std::string out;
  print(out, *this, 0, order);
  return out;
}

std::string Value::compact(MemberOrder order) const {
  std::string out;
  print(out, *this, -1, order);
  return out;
}

std::string Value::scalar_text() const {
  if (const auto* text = get_if<std::string>()) return *text;
  if (const auto* flag = get_if<bool>()) return *flag ? "true" : "false";
  if (const auto* number = get_if<int64_t>()) return std::to_string(*number);
  if (const auto* large = get_if<uint64_t>()) return std::to_string(*large);
  if (const auto* real = get_if<double>()) {
    char buffer[32];
    const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, *real);
    return error == std::errc() ? std::string(buffer, end) : std::string("0");
  }
  return {};
}

std::vector<const Value::Member*> Value::ranked(const Object& object, MemberOrder rank_of) {
  struct Ranked {
    int rank;
    size_t place;
    const Member* member;
  };
  std::vector<Ranked> order;
  order.reserve(object.size());
  for (size_t i = 0; i < object.size(); ++i) {
    const int rank = rank_of == nullptr ? kUnranked : rank_of(object[i].first);
    // Of equal rank the later one comes first; what has no rank keeps its order, after the rest.
    order.push_back({rank, rank == kUnranked ? i : object.size() - i, &object[i]});
  }
  std::sort(order.begin(), order.end(), [](const Ranked& a, const Ranked& b) {
    return a.rank != b.rank ? a.rank < b.rank : a.place < b.place;
  });
  std::vector<const Member*> result;
  result.reserve(order.size());
  for (const Ranked& ranked : order) result.push_back(ranked.member);
  return result;
}

}  // namespace cairn
