#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "operation/summed_lines.h"

// The lines of TEXT with right checksums.
inline std::string with_sums(std::string_view text) {
  cairn::operation::SummedLines lines;
  std::string result;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    result += lines.write(text.substr(at, end - at));
    at = end + 1;
  }
  return result;
}
