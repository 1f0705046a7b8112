#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/value.h"
#include "crypto/cipher.h"
#include "crypto/key_budget.h"

// Headers and metadata of LUKS version 2, free of I/O. Offsets are bytes. Source: "LUKS2 On-Disk
// Format Specification", version 1.1.
namespace cairn::luks2 {

inline constexpr uint64_t kLeastHeaderBytes = 16 << 10;
inline constexpr uint64_t kMostHeaderBytes = 4 << 20;

// One of the two copies: 4096 bytes, its JSON text after them.
struct Header {
  static constexpr size_t kBytes = 4096;
  uint64_t bytes = 0;  // with the JSON text
  uint64_t sequence = 0;
  std::string uuid;

  // True when BYTES begin like a copy: the first (SECOND false) or the one after it.
  static bool looks_like(ByteSpan bytes, bool second);
  // Decodes what can be known without the JSON text. OFFSET is where the copy was found.
  static Header decode(ByteSpan bytes, uint64_t offset);
  // Whether the checksum over the whole copy is right.
  static bool checksum_is_right(ByteSpan whole);
};

struct Keyslot {
  std::string name;
  size_t key_bytes = 0;
  // Anti-forensic split.
  uint32_t stripes = 0;
  HashAlgorithm split_hash = HashAlgorithm::kSha256;
  // Where the material is and how it is encrypted.
  uint64_t offset = 0;
  uint64_t bytes = 0;
  CipherSpec cipher;
  // Key derivation: PBKDF2 when there are iterations, else Argon2.
  HashAlgorithm hash = HashAlgorithm::kSha256;
  uint64_t iterations = 0;
  Argon2Parameters argon2;
  std::string salt;
};

struct Digest {
  std::vector<std::string> keyslots;
  HashAlgorithm hash = HashAlgorithm::kSha256;
  uint64_t iterations = 0;
  std::string salt;
  std::string digest;
};

// What this program uses of the metadata: one plain encrypted segment with its digest and key
// slots.
struct Metadata {
  uint64_t payload_offset = 0;
  std::optional<uint64_t> payload_bytes;  // nothing: to the end of the file
  std::string encryption;                 // "aes-xts-plain64"
  uint64_t first_iv = 0;
  uint32_t sector_bytes = 512;
  Digest digest;
  std::vector<Keyslot> keyslots;      // those of the digest that this program can use
  std::vector<std::string> unusable;  // and why others cannot be

  // TEXT is the JSON area up to its first NUL. HEADERS_BYTES is where the two copies end. Throws
  // kInvalid for what makes no sense, kUnsupported for what is sound but is not for us: several
  // segments, segments without encryption, images that are being re-encrypted, other requirements.
  static Metadata decode(std::string_view text, uint64_t headers_bytes);
  CipherSpec payload_cipher(size_t key_bytes) const;
};

// The volume's key, when PASSPHRASE and the slot's MATERIAL give it; empty when not. CPU work.
SecureBytes try_slot(const Metadata& metadata, const Keyslot& slot, ByteSpan passphrase,
                     ByteSpan material, KeyWork& work);

}  // namespace cairn::luks2
