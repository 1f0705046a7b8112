#pragma once

#include <fmt/core.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/crc32c.h"

namespace cairn::operation {

// The lines of a file that is appended to. Each comes after eight hexadecimal digits, the CRC-32C
// of the text of all lines up to it: a line that was written in part, or that others are missing
// before, is seen. One object writes, or reads, the lines of one file in their order.
class SummedLines {
 public:
  // Where the text of a line begins.
  static constexpr size_t kTextOffset = 9;

  // TEXT as the next line, with its end.
  std::string write(std::string_view text) {
    sum_ = crc32c(bytes_of(text), sum_);
    return fmt::format("{:08x} {}\n", sum_, text);
  }

  // The text of LINE, which has no end; nothing where it is not the next line.
  std::optional<std::string_view> read(std::string_view line) {
    if (line.size() < kTextOffset || line[kTextOffset - 1] != ' ') return std::nullopt;
    const std::string_view text = line.substr(kTextOffset);
    const uint32_t sum = crc32c(bytes_of(text), sum_);
    if (fmt::format("{:08x}", sum) != line.substr(0, kTextOffset - 1)) return std::nullopt;
    sum_ = sum;
    ++count_;
    return text;
  }
  // How many lines were read.
  size_t count() const { return count_; }

 private:
  uint32_t sum_ = 0;
  size_t count_ = 0;
};

}  // namespace cairn::operation
