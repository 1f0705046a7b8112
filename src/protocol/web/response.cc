#include "protocol/web/response.h"

#include <charconv>

namespace cairn::web {
namespace {

// All heads of one request, redirects included.
constexpr size_t kMostHeadBytes = 256 << 10;

std::string_view trimmed(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

bool same_word(std::string_view text, std::string_view lower) {
  if (text.size() != lower.size()) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if ((c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c) != lower[i]) return false;
  }
  return true;
}

// A number of digits alone that fits into 63 bits.
std::optional<uint64_t> digits(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (value > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return value;
}

}  // namespace

std::optional<ContentRange> parse_content_range(std::string_view text) {
  text = trimmed(text);
  if (text.size() < 6 || !same_word(text.substr(0, 5), "bytes")) return std::nullopt;
  if (text[5] != ' ' && text[5] != '\t' && text[5] != '=') return std::nullopt;
  text = trimmed(text.substr(6));
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const std::string_view place = trimmed(text.substr(0, slash));
  const std::string_view total = trimmed(text.substr(slash + 1));
  ContentRange result;
  if (total != "*") {
    result.total = digits(total);
    if (!result.total) return std::nullopt;
  }
  if (place == "*") return result;
  const size_t dash = place.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  const auto first = digits(trimmed(place.substr(0, dash)));
  const auto last = digits(trimmed(place.substr(dash + 1)));
  if (!first || !last || *first > *last) return std::nullopt;
  if (result.total && *last >= *result.total) return std::nullopt;
  result.place = ContentRange::Place{*first, *last};
  return result;
}

bool Response::add_line(std::string_view line) {
  const size_t before = bytes_;
  if (line.starts_with("HTTP/")) {
    clear();
    const size_t blank = line.find(' ');
    if (blank != std::string_view::npos)
      if (const auto number = digits(trimmed(line.substr(blank + 1, 3))))
        status = static_cast<unsigned>(*number);
  }
  bytes_ = before + line.size();
  if (bytes_ > kMostHeadBytes) return false;
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return true;
  const std::string_view name = trimmed(line.substr(0, colon));
  const std::string_view value = trimmed(line.substr(colon + 1));
  if (same_word(name, "content-length")) {
    length = digits(value);
  } else if (same_word(name, "content-range")) {
    range = parse_content_range(value);
    bad_range = !range;
  } else if (same_word(name, "etag")) {
    etag = value;
  } else if (same_word(name, "last-modified")) {
    last_modified = value;
  } else if (same_word(name, "x-amz-bucket-region")) {
    region = value;
  } else if (same_word(name, "content-type")) {
    multipart = value.size() >= 10 && same_word(value.substr(0, 10), "multipart/");
  }
  return true;
}

std::string Response::validator() const {
  if (etag.size() >= 2 && etag.front() == '"') return etag;
  return last_modified;
}

bool Response::same_file(const Response& other) const {
  if (!etag.empty() && !other.etag.empty()) return etag == other.etag;
  if (!last_modified.empty() && !other.last_modified.empty())
    return last_modified == other.last_modified;
  return true;
}

}  // namespace cairn::web
