#include "daemon/metrics/http_request.h"

#include <algorithm>

namespace cairn::daemon {
namespace {

constexpr std::string_view kEnd = "\r\n";

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return result;
}

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// The characters of methods and of names of headers.
bool is_token(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) != std::string_view::npos;
  });
}

bool has_controls(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](unsigned char c) { return (c < 0x20 && c != '\t') || c == 0x7f; });
}

// "http://host/path?query", "/path?query" and "*" without host and query.
std::string path_of(std::string_view target) {
  if (lower(target.substr(0, 7)) == "http://") {
    target.remove_prefix(7);
    target = target.substr(std::min(target.find('/'), target.size()));
    if (target.empty()) target = "/";
  }
  return std::string(target.substr(0, target.find('?')));
}

// What the headers say about the connection and the body.
struct Headers {
  bool host = false, close = false, keep_alive = false, body = false, bad = false;
};

void take_header(std::string_view name, std::string_view value, Headers& headers) {
  if (name == "host") {
    if (headers.host) headers.bad = true;
    headers.host = true;
  } else if (name == "connection") {
    std::string words = lower(value) + ",";
    for (size_t at = 0, comma = 0; (comma = words.find(',', at)) != std::string::npos;
         at = comma + 1) {
      const std::string_view word = trimmed(std::string_view(words).substr(at, comma - at));
      if (word == "close") headers.close = true;
      if (word == "keep-alive") headers.keep_alive = true;
    }
  } else if (name == "content-length") {
    if (value != "0") headers.body = true;
  } else if (name == "transfer-encoding") {
    headers.body = true;
  }
}

Headers read_headers(std::string_view lines) {
  Headers headers;
  while (!lines.empty()) {
    const size_t end = lines.find(kEnd);
    const std::string_view line = lines.substr(0, end);
    lines.remove_prefix(end + kEnd.size());
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || !is_token(line.substr(0, colon)) || has_controls(line)) {
      headers.bad = true;
      break;
    }
    take_header(lower(line.substr(0, colon)), trimmed(line.substr(colon + 1)), headers);
  }
  return headers;
}

}  // namespace

std::optional<size_t> http_head_length(std::string_view input) {
  const size_t end = input.find("\r\n\r\n");
  if (end == std::string_view::npos) return std::nullopt;
  return end + 4;
}

std::optional<HttpRefusal> parse_http_head(std::string_view head, HttpRequest& request) {
  constexpr HttpRefusal kBad{400, "this is not a request of HTTP"};
  const size_t line_end = head.find(kEnd);
  const std::string_view line = head.substr(0, line_end);
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  if (first == std::string_view::npos || last == first) return kBad;
  const std::string_view target = line.substr(first + 1, last - first - 1);
  const std::string_view version = line.substr(last + 1);
  if (!is_token(line.substr(0, first)) || target.empty() || has_controls(target) ||
      target.find(' ') != std::string_view::npos)
    return kBad;
  if (version.size() != 8 || !version.starts_with("HTTP/")) return kBad;
  if (version != "HTTP/1.1" && version != "HTTP/1.0")
    return HttpRefusal{505, "only HTTP/1.0 and HTTP/1.1 are spoken"};
  const bool newer = version == "HTTP/1.1";
  std::string_view lines = head.substr(line_end + kEnd.size());
  lines.remove_suffix(kEnd.size());
  const Headers headers = read_headers(lines);
  if (headers.bad || (newer && !headers.host)) return kBad;
  request.method = line.substr(0, first);
  request.path = path_of(target);
  request.has_body = headers.body;
  request.keep_alive = !headers.close && (newer || headers.keep_alive) && !headers.body;
  return std::nullopt;
}

std::string_view http_reason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 431:
      return "Request Header Fields Too Large";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Internal Server Error";
  }
}

}  // namespace cairn::daemon
