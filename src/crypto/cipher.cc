#include "crypto/cipher.h"

#include <fmt/core.h>
#include <nettle/twofish.h>

#include <algorithm>
#include <cstring>

#include "crypto/library.h"
#include "platform/memory.h"

namespace cairn {
namespace {

struct FamilyRow {
  CipherFamily family;
  std::string_view name;
  std::string_view display;
  std::initializer_list<size_t> key_bits;
};
const FamilyRow kFamilies[] = {
    {CipherFamily::kAes, "aes", "AES", {128, 192, 256}},
    {CipherFamily::kSerpent, "serpent", "Serpent", {128, 192, 256}},
    {CipherFamily::kTwofish, "twofish", "Twofish", {128, 192, 256}},
    {CipherFamily::kCast5, "cast5", "CAST5", {128}},
    {CipherFamily::kSm4, "sm4", "SM4", {128}},
};
constexpr std::pair<CipherMode, std::string_view> kModes[] = {{CipherMode::kEcb, "ecb"},
                                                              {CipherMode::kCbc, "cbc"},
                                                              {CipherMode::kXts, "xts"},
                                                              {CipherMode::kCtr, "ctr"}};
// Those that QEMU has come first.
constexpr std::pair<IvGenerator, std::string_view> kIvs[] = {
    {IvGenerator::kPlain, "plain"}, {IvGenerator::kPlain64, "plain64"},
    {IvGenerator::kEssiv, "essiv"}, {IvGenerator::kNull, "null"},
    {IvGenerator::kBenbi, "benbi"}, {IvGenerator::kPlain64Be, "plain64be"}};
constexpr size_t kIvsOfQemu = 3;

const FamilyRow& row_of(CipherFamily family) {
  return *std::find_if(std::begin(kFamilies), std::end(kFamilies),
                       [&](const FamilyRow& row) { return row.family == family; });
}

bool has_key_bits(const FamilyRow& row, size_t bits) {
  return std::find(row.key_bits.begin(), row.key_bits.end(), bits) != row.key_bits.end();
}

// libgcrypt's number; 0 for the one cipher that it lacks, Twofish with 192 bits.
int gcrypt_cipher(CipherFamily family, size_t bits) {
  switch (family) {
    case CipherFamily::kAes:
      return bits == 128   ? GCRY_CIPHER_AES128
             : bits == 192 ? GCRY_CIPHER_AES192
                           : GCRY_CIPHER_AES256;
    case CipherFamily::kSerpent:
      return bits == 128   ? GCRY_CIPHER_SERPENT128
             : bits == 192 ? GCRY_CIPHER_SERPENT192
                           : GCRY_CIPHER_SERPENT256;
    case CipherFamily::kTwofish:
      return bits == 128 ? GCRY_CIPHER_TWOFISH128 : bits == 192 ? 0 : GCRY_CIPHER_TWOFISH;
    case CipherFamily::kCast5:
      return GCRY_CIPHER_CAST5;
    case CipherFamily::kSm4:
      return GCRY_CIPHER_SM4;
  }
  return 0;
}

[[noreturn]] void refuse(std::string_view parameter, std::string_view word) {
  throw Error(ErrorKind::kInvalid, "Parameter '" + std::string(parameter) +
                                       "' does not accept value '" + std::string(word) + "'");
}

constexpr size_t kMostBlock = 16;

// The modes over a bare block cipher, for the one that libgcrypt lacks.
class Twofish192 {
 public:
  explicit Twofish192(ByteSpan key, CipherMode mode) : mode_(mode) {
    twofish192_set_key(&data_, reinterpret_cast<const uint8_t*>(key.data()));
    if (mode == CipherMode::kXts)
      twofish192_set_key(&tweak_, reinterpret_cast<const uint8_t*>(key.data()) + 24);
  }
  ~Twofish192() {
    platform::wipe(&data_, sizeof data_);
    platform::wipe(&tweak_, sizeof tweak_);
  }

  void sector(bool encrypt, const std::byte* iv, ByteSpan in, MutableByteSpan out) const {
    uint8_t chain[kMostBlock];
    std::memcpy(chain, iv, sizeof chain);
    if (mode_ == CipherMode::kXts) twofish_encrypt(&tweak_, sizeof chain, chain, chain);
    for (size_t at = 0; at < in.size(); at += kMostBlock) {
      uint8_t block[kMostBlock];
      uint8_t before[kMostBlock];
      std::memcpy(block, in.data() + at, sizeof block);
      std::memcpy(before, block, sizeof block);
      switch (mode_) {
        case CipherMode::kEcb:
          crypt(encrypt, block);
          break;
        case CipherMode::kCbc:
          if (encrypt) add(block, chain);
          crypt(encrypt, block);
          if (!encrypt) add(block, chain);
          std::memcpy(chain, encrypt ? block : before, sizeof chain);
          break;
        case CipherMode::kXts:
          add(block, chain);
          crypt(encrypt, block);
          add(block, chain);
          double_tweak(chain);
          break;
        case CipherMode::kCtr:
          std::memcpy(before, chain, sizeof before);
          crypt(true, before);
          add(block, before);
          for (size_t i = sizeof chain; i-- != 0 && ++chain[i] == 0;) {
          }
          break;
      }
      std::memcpy(out.data() + at, block, sizeof block);
    }
  }

 private:
  void crypt(bool encrypt, uint8_t* block) const {
    if (encrypt)
      twofish_encrypt(&data_, kMostBlock, block, block);
    else
      twofish_decrypt(&data_, kMostBlock, block, block);
  }
  static void add(uint8_t* to, const uint8_t* from) {
    for (size_t i = 0; i < kMostBlock; ++i) to[i] ^= from[i];
  }
  static void double_tweak(uint8_t* tweak) {
    uint8_t carry = 0;
    for (size_t i = 0; i < kMostBlock; ++i) {
      const auto next = static_cast<uint8_t>(tweak[i] >> 7);
      tweak[i] = static_cast<uint8_t>(tweak[i] << 1 | carry);
      carry = next;
    }
    if (carry != 0) tweak[0] ^= 0x87;
  }

  CipherMode mode_;
  twofish_ctx data_ = {};
  twofish_ctx tweak_ = {};
};

class GcryptHandle {
 public:
  GcryptHandle() = default;
  GcryptHandle(int cipher, int mode, ByteSpan key) {
    ready_gcrypt();
    check_gcrypt(gcry_cipher_open(&handle_, cipher, mode, 0), "cipher");
    const gcry_error_t error = gcry_cipher_setkey(handle_, key.data(), key.size());
    // Weak keys are the image's; the context is ready all the same.
    if (gcry_err_code(error) != GPG_ERR_WEAK_KEY && error != 0) {
      gcry_cipher_close(handle_);
      handle_ = nullptr;
      check_gcrypt(error, "cipher");
    }
  }
  GcryptHandle(GcryptHandle&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  GcryptHandle& operator=(GcryptHandle&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  // Wipes the key.
  ~GcryptHandle() { gcry_cipher_close(handle_); }
  gcry_cipher_hd_t get() const { return handle_; }

 private:
  gcry_cipher_hd_t handle_ = nullptr;
};

int gcrypt_mode(CipherMode mode) {
  switch (mode) {
    case CipherMode::kEcb:
      return GCRY_CIPHER_MODE_ECB;
    case CipherMode::kCbc:
      return GCRY_CIPHER_MODE_CBC;
    case CipherMode::kXts:
      return GCRY_CIPHER_MODE_XTS;
    case CipherMode::kCtr:
      return GCRY_CIPHER_MODE_CTR;
  }
  return GCRY_CIPHER_MODE_NONE;
}

}  // namespace

// --- names ---

std::string_view CipherSpec::family_name() const { return row_of(family).name; }
std::string CipherSpec::algorithm_name() const {
  std::string name(family_name());
  if (family != CipherFamily::kSm4) name += "-" + std::to_string(key_bits);
  return name;
}
std::string_view CipherSpec::mode_name() const {
  for (const auto& [known, name] : kModes)
    if (known == mode) return name;
  return {};
}
std::string_view CipherSpec::iv_name() const {
  for (const auto& [known, name] : kIvs)
    if (known == iv) return name;
  return {};
}
std::string CipherSpec::mode_text() const {
  std::string text(mode_name());
  text += "-" + std::string(iv_name());
  if (iv_hash) text += ":" + std::string(name_of(*iv_hash));
  return text;
}

void CipherSpec::set_algorithm(std::string_view word, std::string_view parameter) {
  if (word == "des" || word == "3des")
    throw Error(ErrorKind::kUnsupported, "Algorithm '" + std::string(word) + "' not supported");
  for (const FamilyRow& row : kFamilies) {
    for (const size_t bits : row.key_bits) {
      family = row.family;
      key_bits = bits;
      if (algorithm_name() == word) return;
    }
  }
  refuse(parameter, word);
}
void CipherSpec::set_mode(std::string_view word, std::string_view parameter) {
  for (const auto& [known, name] : kModes) {
    if (name != word) continue;
    mode = known;
    return;
  }
  refuse(parameter, word);
}
void CipherSpec::set_iv(std::string_view word, std::string_view parameter) {
  for (size_t i = 0; i < kIvsOfQemu; ++i) {
    if (kIvs[i].second != word) continue;
    iv = kIvs[i].first;
    return;
  }
  refuse(parameter, word);
}

CipherSpec CipherSpec::parse(const std::string& cipher, const std::string& mode_string,
                             size_t key_bytes) {
  CipherSpec spec;
  const size_t dash = mode_string.find('-');
  if (dash == std::string::npos)
    throw Error(ErrorKind::kInvalid, "Unexpected cipher mode string format '" + mode_string + "'");
  const std::string mode_word = mode_string.substr(0, dash);
  std::string iv_word = mode_string.substr(dash + 1);
  if (const size_t colon = iv_word.find(':'); colon != std::string::npos) {
    const std::string hash_word = iv_word.substr(colon + 1);
    iv_word.resize(colon);
    spec.iv_hash = hash_named(hash_word);
    if (!spec.iv_hash)
      throw Error(ErrorKind::kUnsupported, "Hash algorithm '" + hash_word + "' not supported");
  }
  const auto known_mode = std::find_if(std::begin(kModes), std::end(kModes),
                                       [&](const auto& row) { return row.second == mode_word; });
  if (known_mode == std::end(kModes))
    throw Error(ErrorKind::kUnsupported, "Cipher mode '" + mode_word + "' not supported");
  spec.mode = known_mode->first;
  const size_t bytes = spec.mode == CipherMode::kXts ? key_bytes / 2 : key_bytes;
  const bool even = spec.mode != CipherMode::kXts || key_bytes % 2 == 0;
  const auto row = std::find_if(
      std::begin(kFamilies), std::end(kFamilies),
      [&](const FamilyRow& one) { return one.name == cipher && has_key_bits(one, bytes * 8); });
  if (row == std::end(kFamilies) || !even)
    throw Error(ErrorKind::kUnsupported,
                fmt::format("Algorithm '{}' with key size {} bytes not supported", cipher, bytes));
  spec.family = row->family;
  spec.key_bits = bytes * 8;
  const auto known_iv = std::find_if(std::begin(kIvs), std::end(kIvs),
                                     [&](const auto& one) { return one.second == iv_word; });
  if (known_iv == std::end(kIvs))
    throw Error(ErrorKind::kUnsupported, "IV generator '" + iv_word + "' not supported");
  spec.iv = known_iv->first;
  if (spec.iv == IvGenerator::kEssiv && !spec.iv_hash)
    throw Error(ErrorKind::kInvalid, "Missing IV generator hash specification");
  return spec;
}

void CipherSpec::validate() const {
  if (mode == CipherMode::kXts && block_bytes() != 16)
    throw Error(ErrorKind::kUnsupported, "Unsupported cipher mode xts");
  if (iv != IvGenerator::kEssiv) return;
  if (!iv_hash) throw Error(ErrorKind::kInvalid, "Missing IV generator hash specification");
  const size_t iv_key = digest_bytes(*iv_hash);
  if (has_key_bits(row_of(family), iv_key * 8)) return;
  if (family == CipherFamily::kAes || family == CipherFamily::kSerpent ||
      family == CipherFamily::kTwofish)
    throw Error(ErrorKind::kUnsupported, fmt::format("No {} cipher with key size {} available",
                                                     row_of(family).display, iv_key));
  throw Error(ErrorKind::kUnsupported, "Cipher " + algorithm_name() + " not supported with essiv");
}

// --- sectors ---

struct SectorCipher::Contexts {
  GcryptHandle data;
  std::unique_ptr<Twofish192> twofish192;
  GcryptHandle iv;
  std::unique_ptr<Twofish192> iv_twofish192;
};

// A set of contexts for one call.
class SectorCipher::Lease {
 public:
  explicit Lease(const SectorCipher& cipher) : cipher_(cipher) {
    {
      const std::lock_guard lock(cipher.idle_mutex_);
      if (!cipher.idle_.empty()) {
        contexts_ = std::move(cipher.idle_.back());
        cipher.idle_.pop_back();
      }
    }
    if (!contexts_) contexts_ = cipher.make_contexts();
  }
  ~Lease() {
    const std::lock_guard lock(cipher_.idle_mutex_);
    cipher_.idle_.push_back(std::move(contexts_));
  }
  Contexts& contexts() { return *contexts_; }

 private:
  const SectorCipher& cipher_;
  std::unique_ptr<Contexts> contexts_;
};

SectorCipher::SectorCipher(const CipherSpec& spec, ByteSpan key, uint32_t sector_bytes,
                           uint64_t first_iv)
    : spec_(spec), key_(key.begin(), key.end()), sector_bytes_(sector_bytes), first_iv_(first_iv) {
  spec.validate();
  if (key.size() != spec.key_bytes() || sector_bytes == 0 || sector_bytes % 512 != 0)
    throw Error(ErrorKind::kInvalid, "The key does not fit the cipher");
  if (spec.iv == IvGenerator::kEssiv) {
    iv_key_.resize(digest_bytes(*spec.iv_hash));
    digest(*spec.iv_hash, key, {}, iv_key_);
  }
  idle_.push_back(make_contexts());
}

SectorCipher::~SectorCipher() = default;

std::unique_ptr<SectorCipher::Contexts> SectorCipher::make_contexts() const {
  auto contexts = std::make_unique<Contexts>();
  if (const int cipher = gcrypt_cipher(spec_.family, spec_.key_bits))
    contexts->data = GcryptHandle(cipher, gcrypt_mode(spec_.mode), key_);
  else
    contexts->twofish192 = std::make_unique<Twofish192>(key_, spec_.mode);
  if (!iv_key_.empty()) {
    if (const int cipher = gcrypt_cipher(spec_.family, iv_key_.size() * 8))
      contexts->iv = GcryptHandle(cipher, GCRY_CIPHER_MODE_ECB, iv_key_);
    else
      contexts->iv_twofish192 = std::make_unique<Twofish192>(iv_key_, CipherMode::kEcb);
  }
  return contexts;
}

void SectorCipher::make_iv(Contexts& contexts, uint64_t sector, std::byte* iv) const {
  const size_t block = spec_.block_bytes();
  const MutableByteSpan out(iv, kMostBlock);
  std::memset(iv, 0, kMostBlock);
  switch (spec_.iv) {
    case IvGenerator::kNull:
      break;
    case IvGenerator::kPlain:
      store_le<uint32_t>(out, 0, static_cast<uint32_t>(sector));
      break;
    case IvGenerator::kPlain64:
      store_le<uint64_t>(out, 0, sector);
      break;
    case IvGenerator::kPlain64Be:
      store_be<uint64_t>(out, block - 8, sector);
      break;
    case IvGenerator::kBenbi:
      store_be<uint64_t>(out, block - 8, sector * (512 / block) + 1);
      break;
    case IvGenerator::kEssiv: {
      std::byte number[kMostBlock] = {};
      store_le<uint64_t>(number, 0, sector);
      if (contexts.iv_twofish192)
        contexts.iv_twofish192->sector(true, number, number, out);
      else
        check_gcrypt(gcry_cipher_encrypt(contexts.iv.get(), iv, block, number, block), "cipher");
      break;
    }
  }
}

template <bool Encrypt>
void SectorCipher::run(uint64_t offset, ByteSpan in, MutableByteSpan out) const {
  if (offset % sector_bytes_ != 0 || in.size() % sector_bytes_ != 0 || in.size() != out.size())
    throw Error(ErrorKind::kInvalid, "Encrypted data is not a whole number of sectors");
  Lease lease(*this);
  Contexts& contexts = lease.contexts();
  gcry_cipher_hd_t handle = contexts.data.get();
  const size_t block = spec_.block_bytes();
  uint64_t sector = first_iv_ + offset / 512;
  for (size_t at = 0; at < in.size(); at += sector_bytes_, sector += sector_bytes_ / 512) {
    std::byte iv[kMostBlock];
    if (spec_.mode != CipherMode::kEcb) make_iv(contexts, sector, iv);
    if (contexts.twofish192) {
      contexts.twofish192->sector(Encrypt, iv, in.subspan(at, sector_bytes_),
                                  out.subspan(at, sector_bytes_));
      continue;
    }
    if (spec_.mode == CipherMode::kCtr)
      check_gcrypt(gcry_cipher_setctr(handle, iv, block), "cipher");
    else if (spec_.mode != CipherMode::kEcb)
      check_gcrypt(gcry_cipher_setiv(handle, iv, block), "cipher");
    const gcry_error_t error = Encrypt ? gcry_cipher_encrypt(handle, out.data() + at, sector_bytes_,
                                                             in.data() + at, sector_bytes_)
                                       : gcry_cipher_decrypt(handle, out.data() + at, sector_bytes_,
                                                             in.data() + at, sector_bytes_);
    check_gcrypt(error, "cipher");
  }
}

void SectorCipher::encrypt(uint64_t offset, ByteSpan in, MutableByteSpan out) const {
  run<true>(offset, in, out);
}
void SectorCipher::decrypt(uint64_t offset, ByteSpan in, MutableByteSpan out) const {
  run<false>(offset, in, out);
}

SecureBytes decrypt_padded(ByteSpan key, ByteSpan iv, ByteSpan in) {
  if (key.size() != 32) throw Error(ErrorKind::kInvalid, "Key should be 32 bytes in length");
  if (in.empty() || in.size() % 16 != 0)
    throw Error(ErrorKind::kInvalid,
                fmt::format("Encrypted data is {} bytes, no multiple of 16", in.size()));
  const GcryptHandle handle(GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_CBC, key);
  check_gcrypt(gcry_cipher_setiv(handle.get(), iv.data(), iv.size()), "cipher");
  SecureBytes out(in.size());
  check_gcrypt(gcry_cipher_decrypt(handle.get(), out.data(), out.size(), in.data(), in.size()),
               "cipher");
  const auto padding = static_cast<size_t>(out.back());
  if (padding > 16 || padding > out.size())
    throw Error(
        ErrorKind::kInvalid,
        fmt::format("Incorrect number of padding bytes ({}) found on decrypted data", padding));
  out.resize(out.size() - padding);
  return out;
}

std::unique_ptr<SectorCipher> make_legacy_aes(ByteSpan passphrase) {
  const CipherSpec spec{.family = CipherFamily::kAes,
                        .key_bits = 128,
                        .mode = CipherMode::kCbc,
                        .iv = IvGenerator::kPlain64,
                        .iv_hash = {}};
  SecureBytes key(spec.key_bytes());
  std::copy_n(passphrase.begin(), std::min(passphrase.size(), key.size()), key.begin());
  return std::make_unique<SectorCipher>(spec, key);
}

}  // namespace cairn
