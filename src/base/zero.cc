#include <algorithm>
#include <cstring>

#include "base/bytes.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace cairn {
namespace {

// The scanners give the offset of some block that has the first byte that is not zero, or
// SIZE. What they step over is zero; the caller looks closer. Data is mostly found in the first
// bytes, so the callers test those before they come here.

size_t skip_zero_words(const std::byte* bytes, size_t size) {
  size_t at = 0;
  for (; size - at >= 64; at += 64) {
    uint64_t words[8];
    std::memcpy(words, bytes + at, sizeof words);
    if ((words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6] | words[7]) !=
        0)
      return at;
  }
  return at;
}

#if defined(__x86_64__)
size_t skip_zero_sse2(const std::byte* bytes, size_t size) {
  size_t at = 0;
  for (; size - at >= 128; at += 128) {
    const auto* block = reinterpret_cast<const __m128i*>(bytes + at);
    const __m128i left =
        _mm_or_si128(_mm_or_si128(_mm_loadu_si128(block), _mm_loadu_si128(block + 1)),
                     _mm_or_si128(_mm_loadu_si128(block + 2), _mm_loadu_si128(block + 3)));
    const __m128i right =
        _mm_or_si128(_mm_or_si128(_mm_loadu_si128(block + 4), _mm_loadu_si128(block + 5)),
                     _mm_or_si128(_mm_loadu_si128(block + 6), _mm_loadu_si128(block + 7)));
    const __m128i all = _mm_or_si128(left, right);
    if (_mm_movemask_epi8(_mm_cmpeq_epi8(all, _mm_setzero_si128())) != 0xffff) return at;
  }
  return at;
}

__attribute__((target("avx2"))) size_t skip_zero_avx2(const std::byte* bytes, size_t size) {
  size_t at = 0;
  for (; size - at >= 256; at += 256) {
    const auto* block = reinterpret_cast<const __m256i*>(bytes + at);
    const __m256i left = _mm256_or_si256(
        _mm256_or_si256(_mm256_loadu_si256(block), _mm256_loadu_si256(block + 1)),
        _mm256_or_si256(_mm256_loadu_si256(block + 2), _mm256_loadu_si256(block + 3)));
    const __m256i right = _mm256_or_si256(
        _mm256_or_si256(_mm256_loadu_si256(block + 4), _mm256_loadu_si256(block + 5)),
        _mm256_or_si256(_mm256_loadu_si256(block + 6), _mm256_loadu_si256(block + 7)));
    const __m256i all = _mm256_or_si256(left, right);
    if (_mm256_testz_si256(all, all) == 0) return at;
  }
  return at;
}

size_t skip_zero(const std::byte* bytes, size_t size) {
  static const bool avx2 = __builtin_cpu_supports("avx2") != 0;
  return avx2 ? skip_zero_avx2(bytes, size) : skip_zero_sse2(bytes, size);
}
#else
size_t skip_zero(const std::byte* bytes, size_t size) { return skip_zero_words(bytes, size); }
#endif

// Offset of the first byte that is not zero; the size when there is none.
size_t first_data(ByteSpan bytes) {
  // A buffer that holds data nearly always shows it in its first bytes.
  const size_t head = skip_zero_words(bytes.data(), std::min<size_t>(bytes.size(), 64));
  size_t at = head;
  if (head == 64) at += skip_zero(bytes.data() + head, bytes.size() - head);
  at += skip_zero_words(bytes.data() + at, bytes.size() - at);
  while (at < bytes.size() && bytes[at] == std::byte{0}) ++at;
  return at;
}

}  // namespace

bool is_zero(ByteSpan bytes) { return first_data(bytes) == bytes.size(); }

size_t zero_run(ByteSpan bytes, size_t unit, bool* zero) {
  const size_t data = first_data(bytes);
  if (data == bytes.size() || data >= unit) {
    *zero = true;
    return data == bytes.size() ? data : data - data % unit;
  }
  *zero = false;
  size_t at = unit;
  while (at < bytes.size() && !is_zero(bytes.subspan(at, std::min(unit, bytes.size() - at))))
    at += unit;
  return std::min(at, bytes.size());
}

}  // namespace cairn
