#include "crypto/antiforensic.h"

#include <algorithm>

namespace cairn {
namespace {

// Every piece of a digest's length becomes the digest of its number and itself.
void diffuse(MutableByteSpan block, HashAlgorithm hash) {
  const size_t piece = digest_bytes(hash);
  SecureBytes before(block.begin(), block.end());
  uint32_t number = 0;
  for (size_t at = 0; at < block.size(); at += piece, ++number) {
    const size_t length = std::min(piece, block.size() - at);
    std::byte prefix[4];
    store_be<uint32_t>(prefix, 0, number);
    digest(hash, prefix, ByteSpan(before).subspan(at, length), block.subspan(at, length));
  }
}

void add(MutableByteSpan to, ByteSpan from) {
  for (size_t i = 0; i < to.size(); ++i) to[i] ^= from[i];
}

}  // namespace

SecureBytes split_key(ByteSpan key, size_t stripes, HashAlgorithm hash) {
  SecureBytes material(key.size() * stripes);
  const size_t last = key.size() * (stripes - 1);
  random_bytes(MutableByteSpan(material).first(last));
  SecureBytes sum(key.size());
  for (size_t at = 0; at < last; at += key.size()) {
    add(sum, ByteSpan(material).subspan(at, key.size()));
    diffuse(sum, hash);
  }
  add(sum, key);
  std::copy(sum.begin(), sum.end(), material.begin() + static_cast<ptrdiff_t>(last));
  return material;
}

SecureBytes merge_key(ByteSpan material, size_t key_bytes, size_t stripes, HashAlgorithm hash) {
  SecureBytes sum(key_bytes);
  const size_t last = key_bytes * (stripes - 1);
  for (size_t at = 0; at < last; at += key_bytes) {
    add(sum, material.subspan(at, key_bytes));
    diffuse(sum, hash);
  }
  add(sum, material.subspan(last, key_bytes));
  return sum;
}

}  // namespace cairn
