#pragma once

#include <cstdint>
#include <optional>

namespace cairn {

// Sums and products of numbers that an image or a user chose; nothing when they overflow.
constexpr std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) {
  uint64_t result = 0;
  if (__builtin_add_overflow(a, b, &result)) return std::nullopt;
  return result;
}
constexpr std::optional<uint64_t> checked_mul(uint64_t a, uint64_t b) {
  uint64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result)) return std::nullopt;
  return result;
}

constexpr bool is_power_of_two(uint64_t value) { return value != 0 && (value & (value - 1)) == 0; }

// ALIGNMENT need not be a power of two, but not zero. align_up must not be given a value within
// ALIGNMENT of 2^64.
constexpr uint64_t align_down(uint64_t value, uint64_t alignment) {
  return value - value % alignment;
}
constexpr uint64_t align_up(uint64_t value, uint64_t alignment) {
  return align_down(value + alignment - 1, alignment);
}
constexpr bool is_aligned(uint64_t value, uint64_t alignment) { return value % alignment == 0; }
constexpr uint64_t div_ceil(uint64_t value, uint64_t divisor) {
  return value / divisor + (value % divisor != 0);
}

}  // namespace cairn
