#pragma once

#include <cstdint>
#include <string_view>

#include "crypto/hash.h"

namespace cairn {

// What deriving the key of one image may cost. A header that asks for more is refused before the
// work begins.
struct KeyBudget {
  uint64_t memory_bytes = uint64_t{1} << 30;  // as much as cryptsetup takes by itself
  uint64_t seconds = 120;                     // of all key slots that are tried
};

// The work on one image: each step is checked against what the ones before it have left.
class KeyWork {
 public:
  explicit KeyWork(const KeyBudget& budget) : budget_(budget) {}
  // Throw kInvalid when a step costs too much; WHAT names the place ("Keyslot 3").
  void pbkdf2(std::string_view what, HashAlgorithm hash, size_t output_bytes, uint64_t iterations);
  void argon2(std::string_view what, const Argon2Parameters& parameters);

 private:
  void spend(std::string_view what, std::string_view need, double seconds);
  KeyBudget budget_;
  double spent_ = 0;
};

}  // namespace cairn
