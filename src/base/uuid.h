#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "base/bytes.h"

namespace cairn {

// 16 bytes in the order of the text form (RFC 4122).
struct Uuid {
  std::array<std::byte, 16> bytes{};

  // A random one (version 4). Throws when the system gives no random bytes.
  static Uuid random();
  // "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", with or without braces. Throws kInvalid.
  static Uuid parse(std::string_view text);
  // The mixed order of GUIDs on disk: the first three fields are little-endian.
  static Uuid load_guid(ByteSpan bytes, size_t offset);
  void store_guid(MutableByteSpan bytes, size_t offset) const;

  bool is_null() const { return *this == Uuid{}; }
  // Lower case, without braces.
  std::string text() const;
  bool operator==(const Uuid&) const = default;
};

}  // namespace cairn
