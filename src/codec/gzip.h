#pragma once

#include <memory>
#include <vector>

#include "base/bytes.h"

namespace cairn {

// Writes one gzip member (RFC 1952) piece by piece.
class GzipWriter {
 public:
  explicit GzipWriter(int level);
  ~GzipWriter();
  // Adds IN; what is ready is appended to OUT. LAST: nothing follows.
  void add(ByteSpan in, bool last, std::vector<std::byte>& out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Reads one gzip member piece by piece.
class GzipReader {
 public:
  GzipReader();
  ~GzipReader();
  // Decodes from IN, which moves on, to OUT; gives how many bytes of it were filled. Fewer than all
  // when IN is used up or the member has ended. Throws kCorrupt, also for a wrong checksum.
  size_t read(ByteSpan& in, MutableByteSpan out);
  bool ended() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cairn
