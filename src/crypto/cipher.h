#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "crypto/hash.h"

namespace cairn {

enum class CipherFamily { kAes, kSerpent, kTwofish, kCast5, kSm4 };
enum class CipherMode { kEcb, kCbc, kXts, kCtr };
enum class IvGenerator { kPlain, kPlain64, kEssiv, kNull, kPlain64Be, kBenbi };

// A cipher as LUKS means it.
struct CipherSpec {
  CipherFamily family = CipherFamily::kAes;
  size_t key_bits = 256;  // of the block cipher; XTS takes two such keys
  CipherMode mode = CipherMode::kXts;
  IvGenerator iv = IvGenerator::kPlain64;
  std::optional<HashAlgorithm> iv_hash;  // used by ESSIV only

  size_t key_bytes() const { return key_bits / 8 * (mode == CipherMode::kXts ? 2 : 1); }
  size_t block_bytes() const { return family == CipherFamily::kCast5 ? 8 : 16; }
  // "aes", as headers have it; "aes-256", as options have it.
  std::string_view family_name() const;
  std::string algorithm_name() const;
  std::string_view mode_name() const;
  std::string_view iv_name() const;
  // "xts-plain64", "cbc-essiv:sha256".
  std::string mode_text() const;
  // Throws kInvalid or kUnsupported with QEMU's wording when the parts do not go together.
  void validate() const;

  // Sets family and key size from an option's word; throws QEMU's words for a PARAMETER.
  void set_algorithm(std::string_view word, std::string_view parameter = "cipher-alg");
  void set_mode(std::string_view word, std::string_view parameter = "cipher-mode");
  void set_iv(std::string_view word, std::string_view parameter = "ivgen-alg");
  // Out of a header's strings and key size. Throws what QEMU says, in its order; extra modes of
  // cryptsetup (null, plain64be, benbi) are understood.
  static CipherSpec parse(const std::string& cipher, const std::string& mode, size_t key_bytes);
};

// Encrypts and decrypts runs of sectors. May be used by any number of threads at a time: each call
// takes a set of cipher contexts of its own, which are kept for the next one.
class SectorCipher {
 public:
  struct Contexts;

  // SECTOR_BYTES is what one IV covers; IVs count in units of 512 bytes all the same, from FIRST_IV
  // on. KEY has spec.key_bytes(). Throws kInvalid, kUnsupported.
  SectorCipher(const CipherSpec& spec, ByteSpan key, uint32_t sector_bytes = 512,
               uint64_t first_iv = 0);
  ~SectorCipher();
  SectorCipher(const SectorCipher&) = delete;

  uint32_t sector_bytes() const { return sector_bytes_; }
  const CipherSpec& spec() const { return spec_; }

  // OFFSET (bytes, a multiple of the sector) chooses the IVs; IN and OUT have the same length, a
  // multiple of the sector, and may be the same memory.
  void encrypt(uint64_t offset, ByteSpan in, MutableByteSpan out) const;
  void decrypt(uint64_t offset, ByteSpan in, MutableByteSpan out) const;

 private:
  class Lease;
  std::unique_ptr<Contexts> make_contexts() const;
  void make_iv(Contexts& contexts, uint64_t sector, std::byte* iv) const;
  template <bool Encrypt>
  void run(uint64_t offset, ByteSpan in, MutableByteSpan out) const;

  CipherSpec spec_;
  SecureBytes key_;
  SecureBytes iv_key_;  // of ESSIV
  uint32_t sector_bytes_;
  uint64_t first_iv_;
  mutable std::mutex idle_mutex_;
  mutable std::vector<std::unique_ptr<Contexts>> idle_;
};

// AES-256-CBC with padding as PKCS #7 has it, for secrets that are encrypted under another. Throws
// kInvalid with QEMU's wording.
SecureBytes decrypt_padded(ByteSpan key, ByteSpan iv, ByteSpan in);

// The scheme of qcow and old qcow2 images: AES-128-CBC under the first 16 bytes of the passphrase,
// IVs counting the guest's sectors.
std::unique_ptr<SectorCipher> make_legacy_aes(ByteSpan passphrase);

}  // namespace cairn
