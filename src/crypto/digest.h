#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace cairn {

// A digest of bytes that come one after the other. Not for several threads at a time.
class Digest {
 public:
  // Throws kInvalid that lists the names when ALGORITHM is none of names().
  explicit Digest(std::string_view algorithm);
  ~Digest();
  Digest(Digest&&) noexcept;
  Digest& operator=(Digest&&) noexcept;

  // The name as names() spells it.
  const std::string& algorithm() const { return algorithm_; }
  void add(ByteSpan bytes);
  // As add() of LENGTH bytes that are zero, from a buffer that stays in the processor's cache.
  void add_zeroes(uint64_t length);
  // Lower-case hexadecimal digits; nothing may be added afterwards.
  std::string finish();

  // What can be asked for: "sha256", "sha512", "blake2b-256", …
  static const std::vector<std::string_view>& names();

 private:
  struct State;
  std::unique_ptr<State> state_;
  std::string algorithm_;
};

}  // namespace cairn
