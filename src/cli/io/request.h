#pragma once

#include "base/buffer.h"
#include "cli/io/shell.h"

namespace cairn::cli::io {

// The memory of one request, filled with one byte, shifted where -m asks for it.
class Buffer {
 public:
  Buffer(const Shell& shell, uint64_t bytes, uint8_t fill);
  MutableByteSpan span() { return memory_.span().subspan(shift_, bytes_); }

 private:
  uint64_t shift_;
  uint64_t bytes_;
  AlignedBuffer memory_;
};

// VALUE, or Failed when it is no multiple of 512.
uint64_t sector_aligned(uint64_t value, const char* what);
// The sum of the lengths that follow the offset in WORDS.
uint64_t vector_length(const Shell& shell, const std::vector<std::string>& words);

}  // namespace cairn::cli::io
