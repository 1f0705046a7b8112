#include <immintrin.h>

#include <algorithm>

#include "base/bytes.h"

namespace cairn {
namespace {

bool zero_words(const std::byte* data, size_t size) {
  uint64_t all = 0;
  while (size >= 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    all |= word;
    data += 8;
    size -= 8;
  }
  for (size_t i = 0; i < size; ++i) all |= static_cast<uint64_t>(data[i]);
  return all == 0;
}

bool zero_sse2(const std::byte* data, size_t size) {
  const __m128i nothing = _mm_setzero_si128();
  while (size >= 64) {
    const auto* at = reinterpret_cast<const __m128i*>(data);
    const __m128i a = _mm_or_si128(_mm_loadu_si128(at), _mm_loadu_si128(at + 1));
    const __m128i b = _mm_or_si128(_mm_loadu_si128(at + 2), _mm_loadu_si128(at + 3));
    if (_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_or_si128(a, b), nothing)) != 0xffff) return false;
    data += 64;
    size -= 64;
  }
  return zero_words(data, size);
}

__attribute__((target("avx2"))) bool zero_avx2(const std::byte* data, size_t size) {
  while (size >= 128) {
    const auto* at = reinterpret_cast<const __m256i*>(data);
    const __m256i a = _mm256_or_si256(_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1));
    const __m256i b = _mm256_or_si256(_mm256_loadu_si256(at + 2), _mm256_loadu_si256(at + 3));
    const __m256i both = _mm256_or_si256(a, b);
    if (!_mm256_testz_si256(both, both)) return false;
    data += 128;
    size -= 128;
  }
  return zero_sse2(data, size);
}

using ZeroTest = bool (*)(const std::byte*, size_t);

ZeroTest best_test() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") ? zero_avx2 : zero_sse2;
}

}  // namespace

bool is_zero(ByteSpan bytes) {
  static const ZeroTest test = best_test();
  // Data shows within its first bytes almost always, or in the last ones.
  if (bytes.size() > 64 &&
      (!zero_words(bytes.data(), 16) || !zero_words(bytes.data() + bytes.size() - 16, 16)))
    return false;
  return test(bytes.data(), bytes.size());
}

size_t zero_run(ByteSpan bytes, size_t unit, bool* zero) {
  size_t at = std::min(unit, bytes.size());
  *zero = is_zero(bytes.first(at));
  while (at < bytes.size()) {
    const size_t part = std::min(unit, bytes.size() - at);
    if (is_zero(bytes.subspan(at, part)) != *zero) break;
    at += part;
  }
  return at;
}

}  // namespace cairn
