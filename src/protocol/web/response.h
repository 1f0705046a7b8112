#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cairn::web {

// "bytes FIRST-LAST/TOTAL" (RFC 9110, 14.4). The place is missing in "bytes */TOTAL", the total in
// "bytes FIRST-LAST/*".
struct ContentRange {
  struct Place {
    uint64_t first = 0, last = 0;  // inclusive, FIRST <= LAST
  };
  std::optional<Place> place;
  std::optional<uint64_t> total;  // more than LAST
};
// Nothing when TEXT is no such range of bytes.
std::optional<ContentRange> parse_content_range(std::string_view text);

// What a server says before the body, as far as it matters here. Of several answers in a row
// (redirects, authentication) the last one counts.
class Response {
 public:
  // A line of the head, with or without its line end. False when there have been too many bytes.
  bool add_line(std::string_view line);
  void clear() { *this = {}; }

  unsigned status = 0;                // 0 before a status line
  std::optional<uint64_t> length;     // Content-Length
  std::optional<ContentRange> range;  // Content-Range
  bool bad_range = false;             // … that is none
  std::string etag;                   // with its quotes, and W/ when it is weak
  std::string last_modified;
  std::string region;      // x-amz-bucket-region, of S3
  bool multipart = false;  // several ranges with texts between them

  // What a request may say in If-Range: a strong ETag, else the date; empty when there is neither.
  std::string validator() const;
  // Whether both responses are about the same state of the file, as far as they say.
  bool same_file(const Response& other) const;

 private:
  size_t bytes_ = 0;
};

}  // namespace cairn::web
