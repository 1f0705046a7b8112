// The head of a web server's answer, and the URLs to which one leads.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "protocol/web/location.h"
#include "protocol/web/response.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn::web;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  Response first, second;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    first.add_line(line);
    if (second.add_line(line) && second.range && second.range->place) {
      const ContentRange& range = *second.range;
      if (range.place->first > range.place->last) abort();
      if (range.total && range.place->last >= *range.total) abort();
    }
    const Location location = parse_url(line);
    if (masked(location.url) != location.url && !location.has_user) abort();
    if (!same_origin(location.url, location.url)) abort();
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  if (!first.same_file(second)) abort();
  return 0;
}
