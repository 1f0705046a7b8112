#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "base/bytes.h"

namespace cairn {

// How whole files are compressed.
enum class Packing { kGzip, kXz, kBzip2, kZstd };
constexpr Packing kPackings[] = {Packing::kGzip, Packing::kXz, Packing::kBzip2, Packing::kZstd};

// The name of the program that packs so, and of Cairn's driver.
std::string_view to_string(Packing packing);
// Whether HEAD begins as a file that is packed so.
bool is_packed(Packing packing, ByteSpan head);
// As what HEAD begins; nothing when it is not packed.
std::optional<Packing> packing_of(ByteSpan head);

// Unpacks a file that arrives in pieces, all its members (streams, frames) one after the other.
class Unpacker {
 public:
  virtual ~Unpacker() = default;
  // Takes bytes from the front of IN, puts what they unpack to at the front of OUT, and shortens
  // both by what was used. Called until IN is empty and OUT was not filled. LAST: nothing follows
  // IN. Throws kCorrupt when the file is damaged, or cut (with LAST only). Takes at most 1 GiB of
  // memory.
  virtual void step(ByteSpan& in, MutableByteSpan& out, bool last) = 0;
};
std::unique_ptr<Unpacker> make_unpacker(Packing packing);

}  // namespace cairn
