#include "crypto/luks1.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/arith.h"

namespace cairn::luks1 {
namespace {

constexpr uint32_t kActive = 0x00ac71f3;
constexpr uint32_t kInactive = 0x0000dead;
constexpr size_t kSlotsOffset = 208;
constexpr size_t kSlotBytes = 48;

std::string text_field(ByteSpan bytes, size_t offset, const char* what) {
  const auto field = bytes.subspan(offset, 32);
  if (std::find(field.begin(), field.end(), std::byte{0}) == field.end())
    throw Error(ErrorKind::kInvalid, "LUKS header " + std::string(what) + " is not NUL terminated");
  return load_text(bytes, offset, 32);
}

[[noreturn]] void bad_slot(size_t index, const std::string& what) {
  throw Error(ErrorKind::kInvalid, fmt::format("Keyslot {} {}", index, what));
}

}  // namespace

uint64_t Header::slot_area_bytes(uint64_t key_bytes) {
  return align_up(key_bytes * kStripes, kHeaderAreaBytes);
}

uint64_t Header::material_bytes() const {
  return align_up(uint64_t{key_bytes} * kStripes, kSectorBytes);
}

uint64_t Header::end_of_slots() const {
  return kHeaderAreaBytes + kSlots * slot_area_bytes(key_bytes);
}

Header Header::decode(ByteSpan bytes, bool detached) {
  if (bytes.size() < kBytes) throw Error(ErrorKind::kInvalid, "Volume is not in LUKS format");
  if (load_text(bytes, 0, 6) != kMagic)
    throw Error(ErrorKind::kInvalid, "Volume is not in LUKS format");
  if (const auto version = load_be<uint16_t>(bytes, 6); version != 1)
    throw Error(ErrorKind::kUnsupported, fmt::format("LUKS version {} is not supported", version));
  Header header;
  header.cipher_name = text_field(bytes, 8, "cipher name");
  header.cipher_mode = text_field(bytes, 40, "cipher mode");
  header.hash_name = text_field(bytes, 72, "hash spec");
  header.payload_offset = uint64_t{load_be<uint32_t>(bytes, 104)} * kSectorBytes;
  header.key_bytes = load_be<uint32_t>(bytes, 108);
  std::copy_n(bytes.begin() + 112, kDigestBytes, header.digest.begin());
  std::copy_n(bytes.begin() + 132, kSaltBytes, header.digest_salt.begin());
  header.digest_iterations = load_be<uint32_t>(bytes, 164);
  header.uuid = load_text(bytes, 168, 40);

  if (!detached && header.payload_offset < kHeaderAreaBytes)
    throw Error(ErrorKind::kInvalid, "LUKS payload is overlapping with the header");
  if (header.digest_iterations == 0)
    throw Error(ErrorKind::kInvalid, "LUKS key iteration count is zero");
  // A key longer than any cipher's says nothing about areas; the cipher refuses it below.
  // Areas begin and end at sectors: cryptsetup before 1.1 did not align them any further.
  const uint64_t area = header.material_bytes();
  for (size_t i = 0; i < kSlots; ++i) {
    const size_t at = kSlotsOffset + i * kSlotBytes;
    Slot& slot = header.slots[i];
    const auto state = load_be<uint32_t>(bytes, at);
    slot.active = state == kActive;
    slot.iterations = load_be<uint32_t>(bytes, at + 4);
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(at) + 8, kSaltBytes, slot.salt.begin());
    slot.material_offset = uint64_t{load_be<uint32_t>(bytes, at + 40)} * kSectorBytes;
    slot.stripes = load_be<uint32_t>(bytes, at + 44);
    if (slot.stripes != kStripes)
      bad_slot(i, fmt::format("is corrupted (stripes {} != {})", slot.stripes, kStripes));
    if (state != kActive && state != kInactive) bad_slot(i, "state (active/disable) is corrupted");
    if (slot.active && slot.iterations == 0) bad_slot(i, "iteration count is zero");
    if (slot.material_offset < align_up(kBytes, kSectorBytes))
      bad_slot(i, "is overlapping with the LUKS header");
    if (!detached && slot.material_offset + area > header.payload_offset)
      bad_slot(i, "is overlapping with the encrypted payload");
  }
  for (size_t i = 0; i < kSlots; ++i) {
    for (size_t j = i + 1; j < kSlots; ++j) {
      const uint64_t a = header.slots[i].material_offset;
      const uint64_t b = header.slots[j].material_offset;
      if (a < b + area && b < a + area)
        throw Error(ErrorKind::kInvalid,
                    fmt::format("Keyslots {} and {} are overlapping in the header", i, j));
    }
  }
  header.cipher = CipherSpec::parse(header.cipher_name, header.cipher_mode, header.key_bytes);
  const auto hash = hash_named(header.hash_name);
  if (!hash)
    throw Error(ErrorKind::kUnsupported, "Hash algorithm '" + header.hash_name + "' not supported");
  header.hash = *hash;
  header.cipher.validate();
  return header;
}

void Header::encode(MutableByteSpan bytes) const {
  std::fill_n(bytes.begin(), kBytes, std::byte{0});
  store_text(bytes, 0, kMagic);
  store_be<uint16_t>(bytes, 6, 1);
  store_text(bytes, 8, cipher_name);
  store_text(bytes, 40, cipher_mode);
  store_text(bytes, 72, hash_name);
  store_be<uint32_t>(bytes, 104, static_cast<uint32_t>(payload_offset / kSectorBytes));
  store_be<uint32_t>(bytes, 108, key_bytes);
  std::copy(digest.begin(), digest.end(), bytes.begin() + 112);
  std::copy(digest_salt.begin(), digest_salt.end(), bytes.begin() + 132);
  store_be<uint32_t>(bytes, 164, digest_iterations);
  store_text(bytes, 168, uuid);
  for (size_t i = 0; i < kSlots; ++i) {
    const size_t at = kSlotsOffset + i * kSlotBytes;
    const Slot& slot = slots[i];
    store_be<uint32_t>(bytes, at, slot.active ? kActive : kInactive);
    store_be<uint32_t>(bytes, at + 4, slot.iterations);
    std::copy(slot.salt.begin(), slot.salt.end(), bytes.begin() + static_cast<ptrdiff_t>(at) + 8);
    store_be<uint32_t>(bytes, at + 40, static_cast<uint32_t>(slot.material_offset / kSectorBytes));
    store_be<uint32_t>(bytes, at + 44, slot.stripes);
  }
}

Header make_header(const CipherSpec& cipher, HashAlgorithm hash, bool detached) {
  Header header;
  header.cipher = cipher;
  header.hash = hash;
  header.cipher_name = cipher.family_name();
  header.cipher_mode = cipher.mode_text();
  header.hash_name = name_of(hash);
  header.key_bytes = static_cast<uint32_t>(cipher.key_bytes());
  for (size_t i = 0; i < kSlots; ++i)
    header.slots[i].material_offset =
        kHeaderAreaBytes + i * Header::slot_area_bytes(header.key_bytes);
  header.payload_offset = detached ? 0 : header.end_of_slots();
  return header;
}

}  // namespace cairn::luks1
