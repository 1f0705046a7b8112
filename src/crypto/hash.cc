#include "crypto/hash.h"

#include <argon2.h>
#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <utility>

#include "base/arith.h"
#include "crypto/library.h"
#include "platform/memory.h"
#include "platform/system.h"

namespace cairn {
namespace {

struct HashRow {
  HashAlgorithm hash;
  std::string_view name;
  int gcrypt;
  bool creation;
};
constexpr HashRow kHashes[] = {
    {HashAlgorithm::kMd5, "md5", GCRY_MD_MD5, true},
    {HashAlgorithm::kSha1, "sha1", GCRY_MD_SHA1, true},
    {HashAlgorithm::kSha224, "sha224", GCRY_MD_SHA224, true},
    {HashAlgorithm::kSha256, "sha256", GCRY_MD_SHA256, true},
    {HashAlgorithm::kSha384, "sha384", GCRY_MD_SHA384, true},
    {HashAlgorithm::kSha512, "sha512", GCRY_MD_SHA512, true},
    {HashAlgorithm::kRipemd160, "ripemd160", GCRY_MD_RMD160, true},
    {HashAlgorithm::kSm3, "sm3", GCRY_MD_SM3, true},
    {HashAlgorithm::kWhirlpool, "whirlpool", GCRY_MD_WHIRLPOOL, false},
    {HashAlgorithm::kSha3_224, "sha3-224", GCRY_MD_SHA3_224, false},
    {HashAlgorithm::kSha3_256, "sha3-256", GCRY_MD_SHA3_256, false},
    {HashAlgorithm::kSha3_384, "sha3-384", GCRY_MD_SHA3_384, false},
    {HashAlgorithm::kSha3_512, "sha3-512", GCRY_MD_SHA3_512, false},
    {HashAlgorithm::kBlake2b_160, "blake2b-160", GCRY_MD_BLAKE2B_160, false},
    {HashAlgorithm::kBlake2b_256, "blake2b-256", GCRY_MD_BLAKE2B_256, false},
    {HashAlgorithm::kBlake2b_384, "blake2b-384", GCRY_MD_BLAKE2B_384, false},
    {HashAlgorithm::kBlake2b_512, "blake2b-512", GCRY_MD_BLAKE2B_512, false},
    {HashAlgorithm::kBlake2s_128, "blake2s-128", GCRY_MD_BLAKE2S_128, false},
    {HashAlgorithm::kBlake2s_160, "blake2s-160", GCRY_MD_BLAKE2S_160, false},
    {HashAlgorithm::kBlake2s_224, "blake2s-224", GCRY_MD_BLAKE2S_224, false},
    {HashAlgorithm::kBlake2s_256, "blake2s-256", GCRY_MD_BLAKE2S_256, false},
};

const HashRow& row_of(HashAlgorithm hash) {
  return *std::find_if(std::begin(kHashes), std::end(kHashes),
                       [&](const HashRow& row) { return row.hash == hash; });
}

}  // namespace

void ready_gcrypt() {
  static const bool ready = [] {
    // A program that uses libgcrypt itself has set it up as it wants it.
    const bool ours = gcry_control(GCRYCTL_ANY_INITIALIZATION_P) == 0;
    gcry_check_version(nullptr);
    if (!ours) return true;
    // Secrets live in memory that we wipe ourselves.
    gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
    gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
    return true;
  }();
  static_cast<void>(ready);
}

void check_gcrypt(gcry_error_t error, const char* what) {
  if (error != 0) throw Error(ErrorKind::kInvalid, std::string(what) + ": " + gcry_strerror(error));
}

void random_bytes(MutableByteSpan out) {
  if (!platform::random_bytes(out.data(), out.size()))
    throw Error::system(errno, "Unable to get random bytes");
}

bool equal_in_constant_time(ByteSpan a, ByteSpan b) {
  if (a.size() != b.size()) return false;
  std::byte different{0};
  for (size_t i = 0; i < a.size(); ++i) different |= a[i] ^ b[i];
  return different == std::byte{0};
}

std::optional<HashAlgorithm> hash_named(std::string_view name) {
  for (const HashRow& row : kHashes)
    if (row.name == name) return row.hash;
  return std::nullopt;
}

std::string_view name_of(HashAlgorithm hash) { return row_of(hash).name; }
bool hash_for_creation(HashAlgorithm hash) { return row_of(hash).creation; }

size_t digest_bytes(HashAlgorithm hash) {
  ready_gcrypt();
  return gcry_md_get_algo_dlen(row_of(hash).gcrypt);
}

void digest(HashAlgorithm hash, ByteSpan a, ByteSpan b, MutableByteSpan out) {
  ready_gcrypt();
  const int algorithm = row_of(hash).gcrypt;
  gcry_md_hd_t handle = nullptr;
  check_gcrypt(gcry_md_open(&handle, algorithm, 0), "hash");
  gcry_md_write(handle, a.data(), a.size());
  gcry_md_write(handle, b.data(), b.size());
  const size_t length = std::min<size_t>(out.size(), gcry_md_get_algo_dlen(algorithm));
  std::memcpy(out.data(), gcry_md_read(handle, algorithm), length);
  gcry_md_close(handle);
}

void hmac(HashAlgorithm hash, ByteSpan key, ByteSpan data, MutableByteSpan out) {
  ready_gcrypt();
  const int algorithm = row_of(hash).gcrypt;
  gcry_md_hd_t handle = nullptr;
  check_gcrypt(gcry_md_open(&handle, algorithm, GCRY_MD_FLAG_HMAC), "HMAC");
  // An empty key is one too, but has no address.
  const std::byte nothing{0};
  const gcry_error_t error =
      gcry_md_setkey(handle, key.empty() ? &nothing : key.data(), key.size());
  if (error != 0) gcry_md_close(handle);
  check_gcrypt(error, "HMAC");
  gcry_md_write(handle, data.data(), data.size());
  const size_t length = std::min<size_t>(out.size(), gcry_md_get_algo_dlen(algorithm));
  std::memcpy(out.data(), gcry_md_read(handle, algorithm), length);
  gcry_md_close(handle);
}

void pbkdf2(HashAlgorithm hash, ByteSpan password, ByteSpan salt, uint64_t iterations,
            MutableByteSpan out) {
  ready_gcrypt();
  if (!std::in_range<unsigned long>(iterations)) invalid("PBKDF2: too many iterations");
  // An empty password is one too, but has no address.
  const std::byte nothing{0};
  check_gcrypt(gcry_kdf_derive(password.empty() ? &nothing : password.data(), password.size(),
                               GCRY_KDF_PBKDF2, row_of(hash).gcrypt, salt.data(), salt.size(),
                               static_cast<unsigned long>(iterations), out.size(), out.data()),
               "PBKDF2");
}

uint64_t pbkdf2_rate(HashAlgorithm hash, size_t output_bytes) {
  SecureBytes out(output_bytes);
  const std::byte salt[32] = {};
  uint64_t iterations = 1 << 15;
  while (true) {
    const uint64_t begin = platform::thread_cpu_nanoseconds();
    pbkdf2(hash, bytes_of("password"), salt, iterations, out);
    const uint64_t took = std::max<uint64_t>(platform::thread_cpu_nanoseconds() - begin, 1);
    // A tenth of a second shows enough.
    if (took > 100'000'000)
      return static_cast<uint64_t>(static_cast<double>(iterations) * 1e9 /
                                   static_cast<double>(took));
    iterations *= took < 10'000'000 ? 10 : 110'000'000 / took + 1;
  }
}

uint32_t pbkdf2_iterations(HashAlgorithm hash, size_t output_bytes, int64_t milliseconds,
                           unsigned divisor) {
  constexpr uint32_t kFewest = 1000;
  if (milliseconds == 0) return kFewest;
  const uint64_t rate = pbkdf2_rate(hash, output_bytes);
  const auto scaled = checked_mul(rate, static_cast<uint64_t>(milliseconds));
  if (milliseconds < 0 || !scaled)
    throw Error(
        ErrorKind::kInvalid,
        fmt::format("PBKDF iterations {} too large to scale: Numerical result out of range", rate));
  const uint64_t iterations = *scaled / 1000;
  if (iterations > UINT32_MAX)
    throw Error(
        ErrorKind::kInvalid,
        fmt::format("PBKDF iterations {} larger than 4294967295: Numerical result out of range",
                    iterations));
  return std::max(static_cast<uint32_t>(iterations / divisor), kFewest);
}

void argon2(const Argon2Parameters& parameters, ByteSpan password, ByteSpan salt,
            MutableByteSpan out) {
  // What cryptsetup allows, and no more memory than the machine has.
  constexpr uint32_t kMostMemoryKib = 4u << 20;
  constexpr uint64_t kMostWorkKib = uint64_t{256} << 20;  // memory times passes: some minutes
  const uint64_t machine_kib = platform::memory_bytes() / 1024;
  if (parameters.lanes < 1 || parameters.lanes > 64 || parameters.passes < 1 ||
      parameters.memory_kib < 8 * parameters.lanes || parameters.memory_kib > kMostMemoryKib ||
      parameters.memory_kib > machine_kib ||
      uint64_t{parameters.memory_kib} * parameters.passes > kMostWorkKib)
    throw Error(
        ErrorKind::kInvalid,
        fmt::format(
            "Argon2 is asked for with {} passes over {} KiB in {} lanes, which is not sound",
            parameters.passes, parameters.memory_kib, parameters.lanes));
  argon2_context context = {};
  context.out = reinterpret_cast<uint8_t*>(out.data());
  context.outlen = static_cast<uint32_t>(out.size());
  // The library takes them as changeable but is not asked to clear them.
  context.pwd = reinterpret_cast<uint8_t*>(const_cast<std::byte*>(password.data()));
  context.pwdlen = static_cast<uint32_t>(password.size());
  context.salt = reinterpret_cast<uint8_t*>(const_cast<std::byte*>(salt.data()));
  context.saltlen = static_cast<uint32_t>(salt.size());
  context.t_cost = parameters.passes;
  context.m_cost = parameters.memory_kib;
  context.lanes = parameters.lanes;
  context.threads = parameters.lanes;
  context.version = ARGON2_VERSION_13;
  const int error = argon2_ctx(&context, parameters.id ? Argon2_id : Argon2_i);
  if (error == ARGON2_MEMORY_ALLOCATION_ERROR)
    throw Error(ErrorKind::kNoMemory,
                fmt::format("Not enough memory for Argon2 ({} KiB)", parameters.memory_kib));
  if (error != ARGON2_OK)
    throw Error(ErrorKind::kInvalid, std::string("Argon2: ") + argon2_error_message(error));
}

}  // namespace cairn
