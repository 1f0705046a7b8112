#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace cairn {

using ByteSpan = std::span<const std::byte>;
using MutableByteSpan = std::span<std::byte>;

// The one place where integers cross between memory and disk. Offsets are bytes from the start of
// the span; access outside of it throws kInvalid rather than reading on.
namespace detail {
inline void check_bounds(size_t size, size_t offset, size_t width) {
  if (width > size || offset > size - width)
    throw Error(ErrorKind::kInvalid, "structure ends before its last field");
}
template <std::unsigned_integral T>
constexpr T swap_if(T value, std::endian disk) {
  if (disk == std::endian::native) return value;
  if constexpr (sizeof(T) == 1) return value;
  if constexpr (sizeof(T) == 2) return __builtin_bswap16(value);
  if constexpr (sizeof(T) == 4) return __builtin_bswap32(value);
  if constexpr (sizeof(T) == 8) return __builtin_bswap64(value);
}
}  // namespace detail

template <std::unsigned_integral T>
T load_be(ByteSpan bytes, size_t offset) {
  detail::check_bounds(bytes.size(), offset, sizeof(T));
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return detail::swap_if(value, std::endian::big);
}
template <std::unsigned_integral T>
T load_le(ByteSpan bytes, size_t offset) {
  detail::check_bounds(bytes.size(), offset, sizeof(T));
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return detail::swap_if(value, std::endian::little);
}
template <std::unsigned_integral T>
void store_be(MutableByteSpan bytes, size_t offset, T value) {
  detail::check_bounds(bytes.size(), offset, sizeof(T));
  value = detail::swap_if(value, std::endian::big);
  std::memcpy(bytes.data() + offset, &value, sizeof value);
}
template <std::unsigned_integral T>
void store_le(MutableByteSpan bytes, size_t offset, T value) {
  detail::check_bounds(bytes.size(), offset, sizeof(T));
  value = detail::swap_if(value, std::endian::little);
  std::memcpy(bytes.data() + offset, &value, sizeof value);
}

// LENGTH bytes at OFFSET as text, cut at the first NUL.
inline std::string load_text(ByteSpan bytes, size_t offset, size_t length) {
  detail::check_bounds(bytes.size(), offset, length);
  const auto* begin = reinterpret_cast<const char*>(bytes.data() + offset);
  return std::string(begin, strnlen(begin, length));
}
inline void store_text(MutableByteSpan bytes, size_t offset, std::string_view text) {
  detail::check_bounds(bytes.size(), offset, text.size());
  std::memcpy(bytes.data() + offset, text.data(), text.size());
}
inline ByteSpan bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// True when every byte is zero. Vectorised; the cost is one pass over memory.
bool is_zero(ByteSpan bytes);
// How many bytes at the start of BYTES, counted in whole UNITs (a power of two; the last unit may
// be short), are alike: all zero or none entirely zero. Sets ZERO to which.
size_t zero_run(ByteSpan bytes, size_t unit, bool* zero);

}  // namespace cairn
