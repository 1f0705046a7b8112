#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace cairn::daemon {

// The head of a request to a server that has one page.
struct HttpRequest {
  std::string method;
  std::string path;         // without query
  bool keep_alive = false;  // the client wants to ask again on the connection
  bool has_body = false;
};

// Why a head is refused.
struct HttpRefusal {
  int status = 0;
  std::string_view text;
};

// Longer heads are refused.
inline constexpr size_t kMostHttpHead = 8192;

// How many bytes at the beginning of INPUT are a head with the empty line that ends it; nothing
// while that line is missing.
std::optional<size_t> http_head_length(std::string_view input);
// Reads a whole HEAD into REQUEST; gives what is wrong with it.
std::optional<HttpRefusal> parse_http_head(std::string_view head, HttpRequest& request);

// The words that belong to a status.
std::string_view http_reason(int status);

}  // namespace cairn::daemon
