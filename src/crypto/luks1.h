#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "crypto/cipher.h"

// The header of LUKS version 1, free of I/O. All offsets are bytes; on disk they are sectors.
namespace cairn::luks1 {

inline constexpr std::string_view kMagic{"LUKS\xba\xbe", 6};
inline constexpr size_t kSlots = 8;
inline constexpr uint32_t kStripes = 4000;
inline constexpr size_t kDigestBytes = 20;
inline constexpr size_t kSaltBytes = 32;
inline constexpr uint64_t kSectorBytes = 512;
// From the start of the header to the first key material, in images that we make.
inline constexpr uint64_t kHeaderAreaBytes = 4096;

struct Slot {
  bool active = false;
  uint32_t iterations = 0;
  std::array<std::byte, kSaltBytes> salt{};
  uint64_t material_offset = 0;
  uint32_t stripes = kStripes;
};

struct Header {
  static constexpr size_t kBytes = 592;

  std::string cipher_name;
  std::string cipher_mode;
  std::string hash_name;
  uint64_t payload_offset = 0;  // 0: the header is detached
  uint32_t key_bytes = 0;
  std::array<std::byte, kDigestBytes> digest{};
  std::array<std::byte, kSaltBytes> digest_salt{};
  uint32_t digest_iterations = 0;
  std::string uuid;
  std::array<Slot, kSlots> slots;
  // What the strings above mean; set by decode().
  CipherSpec cipher;
  HashAlgorithm hash = HashAlgorithm::kSha256;

  // Decodes and checks everything that can be known from the header alone, in QEMU's order and with
  // its words. DETACHED leaves out what concerns the payload. Throws kInvalid, kUnsupported.
  static Header decode(ByteSpan bytes, bool detached);
  void encode(MutableByteSpan bytes) const;

  // Bytes that one slot takes: its key material in whole 4096-byte blocks.
  static uint64_t slot_area_bytes(uint64_t key_bytes);
  // Bytes of key material, in whole sectors.
  uint64_t material_bytes() const;
  // The end of the last slot: the payload of images that we make begins there.
  uint64_t end_of_slots() const;
};

// A new header with no active slot: salts, UUID, digest iterations are the caller's.
Header make_header(const CipherSpec& cipher, HashAlgorithm hash, bool detached);

}  // namespace cairn::luks1
