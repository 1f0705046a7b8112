#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "crypto/secure.h"

namespace cairn {

enum class HashAlgorithm {
  kMd5,
  kSha1,
  kSha224,
  kSha256,
  kSha384,
  kSha512,
  kRipemd160,
  kSm3,
  kWhirlpool,
  kSha3_224,
  kSha3_256,
  kSha3_384,
  kSha3_512,
  kBlake2b_160,
  kBlake2b_256,
  kBlake2b_384,
  kBlake2b_512,
  kBlake2s_128,
  kBlake2s_160,
  kBlake2s_224,
  kBlake2s_256,
};

// The name in LUKS headers, which is the one of options too; nothing when unknown.
std::optional<HashAlgorithm> hash_named(std::string_view name);
std::string_view name_of(HashAlgorithm hash);
// Whether images may be created with it: the hashes that QEMU has.
bool hash_for_creation(HashAlgorithm hash);
size_t digest_bytes(HashAlgorithm hash);

// OUT gets as many leading bytes of the digest of A followed by B as it has room for.
void digest(HashAlgorithm hash, ByteSpan a, ByteSpan b, MutableByteSpan out);
// HMAC (RFC 2104) of DATA; OUT as above.
void hmac(HashAlgorithm hash, ByteSpan key, ByteSpan data, MutableByteSpan out);

// PBKDF2-HMAC (RFC 8018). CPU work: ITERATIONS decides how long it takes.
void pbkdf2(HashAlgorithm hash, ByteSpan password, ByteSpan salt, uint64_t iterations,
            MutableByteSpan out);
// Iterations of PBKDF2 in a second of this thread's time, for OUTPUT_BYTES of output.
uint64_t pbkdf2_rate(HashAlgorithm hash, size_t output_bytes);
// How many iterations take MILLISECONDS / DIVISOR, at least 1000. A negative time throws what QEMU
// says, as does a result that 32 bits do not hold.
uint32_t pbkdf2_iterations(HashAlgorithm hash, size_t output_bytes, int64_t milliseconds,
                           unsigned divisor);
struct Argon2Parameters {
  bool id = true;  // Argon2id, else Argon2i
  uint32_t passes = 0;
  uint32_t memory_kib = 0;
  uint32_t lanes = 0;
};
// Argon2, version 1.3. Throws kInvalid for parameters that no sound image has, kNoMemory.
void argon2(const Argon2Parameters& parameters, ByteSpan password, ByteSpan salt,
            MutableByteSpan out);

}  // namespace cairn
