#include "crypto/luks2.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "base/arith.h"
#include "base/base64.h"
#include "crypto/antiforensic.h"

namespace cairn::luks2 {
namespace {

constexpr std::string_view kFirstMagic{"LUKS\xba\xbe", 6};
constexpr std::string_view kSecondMagic{"SKUL\xba\xbe", 6};
constexpr size_t kChecksumOffset = 448;
constexpr size_t kChecksumBytes = 64;
// More than any cipher has or cryptsetup writes.
constexpr uint64_t kMostKeyBytes = 512;
constexpr uint64_t kMostStripes = 4000;
constexpr size_t kMostSlots = 32;

[[noreturn]] void wrong(const std::string& what) {
  throw Error(ErrorKind::kInvalid, "LUKS2 metadata: " + what);
}

const Value& member(const Value& object, std::string_view key, const std::string& where) {
  const Value* found = object.find(key);
  if (found == nullptr) wrong(where + " has no \"" + std::string(key) + "\"");
  return *found;
}

std::string text(const Value& object, std::string_view key, const std::string& where) {
  const auto* value = member(object, key, where).get_if<std::string>();
  if (value == nullptr) wrong("\"" + std::string(key) + "\" of " + where + " is not text");
  return *value;
}

// Large numbers are texts with decimal digits.
uint64_t number(const Value& object, std::string_view key, const std::string& where) {
  const Value& value = member(object, key, where);
  if (const auto* whole = value.get_if<int64_t>(); whole != nullptr && *whole >= 0)
    return static_cast<uint64_t>(*whole);
  if (const auto* whole = value.get_if<uint64_t>()) return *whole;
  if (const auto* digits = value.get_if<std::string>()) {
    uint64_t result = 0;
    const char* end = digits->data() + digits->size();
    const auto [stop, error] = std::from_chars(digits->data(), end, result);
    if (error == std::errc() && stop == end && !digits->empty()) return result;
  }
  wrong("\"" + std::string(key) + "\" of " + where + " is not a number");
}

std::string base64(const Value& object, std::string_view key, const std::string& where) {
  auto bytes = decode_base64(text(object, key, where));
  if (!bytes || bytes->empty() || bytes->size() > 4096)
    wrong("\"" + std::string(key) + "\" of " + where + " is not base64");
  return std::move(*bytes);
}

HashAlgorithm hash(const Value& object, std::string_view key, const std::string& where) {
  const std::string name = text(object, key, where);
  const auto found = hash_named(name);
  if (!found) throw Error(ErrorKind::kUnsupported, "Hash algorithm '" + name + "' not supported");
  return *found;
}

const Value::Object& object(const Value& root, std::string_view key) {
  const auto* members = member(root, key, "the root").get_if<Value::Object>();
  if (members == nullptr) wrong("\"" + std::string(key) + "\" is not an object");
  return *members;
}

bool lists(const Value& array, std::string_view word) {
  const auto* items = array.get_if<Value::Array>();
  if (items == nullptr) return false;
  return std::any_of(items->begin(), items->end(), [&](const Value& item) {
    const auto* one = item.get_if<std::string>();
    return one != nullptr && *one == word;
  });
}

// "aes-xts-plain64": the cipher's name, then what LUKS1 calls the mode.
CipherSpec parse_encryption(const std::string& encryption, size_t key_bytes) {
  const size_t dash = encryption.find('-');
  if (dash == std::string::npos || encryption.starts_with("capi:"))
    throw Error(ErrorKind::kUnsupported, "Encryption '" + encryption + "' not supported");
  CipherSpec spec =
      CipherSpec::parse(encryption.substr(0, dash), encryption.substr(dash + 1), key_bytes);
  spec.validate();
  return spec;
}

Keyslot decode_slot(const std::string& name, const Value& value, uint64_t headers_bytes) {
  const std::string where = "keyslot " + name;
  Keyslot slot;
  slot.name = name;
  if (const std::string type = text(value, "type", where); type != "luks2")
    throw Error(ErrorKind::kUnsupported, "keyslots of type '" + type + "' are not supported");
  slot.key_bytes = number(value, "key_size", where);
  const Value& af = member(value, "af", where);
  if (text(af, "type", where) != "luks1") wrong(where + " is split in an unknown way");
  const uint64_t stripes = number(af, "stripes", where);
  slot.split_hash = hash(af, "hash", where);
  const Value& area = member(value, "area", where);
  if (text(area, "type", where) != "raw") wrong(where + " has an area of an unknown type");
  slot.offset = number(area, "offset", where);
  slot.bytes = number(area, "size", where);
  const uint64_t area_key = number(area, "key_size", where);
  if (slot.key_bytes == 0 || slot.key_bytes > kMostKeyBytes || stripes == 0 ||
      stripes > kMostStripes || area_key > kMostKeyBytes)
    wrong(fmt::format("{} has a key of {} bytes in {} stripes", where, slot.key_bytes, stripes));
  slot.stripes = static_cast<uint32_t>(stripes);
  const uint64_t needed = align_up(slot.key_bytes * stripes, 512);
  if (slot.offset < headers_bytes || slot.offset % 512 != 0 || slot.bytes < needed ||
      !checked_add(slot.offset, slot.bytes))
    wrong(fmt::format("{} has its area at {}, where it cannot be", where, slot.offset));
  slot.bytes = needed;
  slot.cipher = parse_encryption(text(area, "encryption", where), area_key);
  const Value& kdf = member(value, "kdf", where);
  const std::string type = text(kdf, "type", where);
  slot.salt = base64(kdf, "salt", where);
  if (type == "pbkdf2") {
    slot.hash = hash(kdf, "hash", where);
    slot.iterations = number(kdf, "iterations", where);
    if (slot.iterations == 0 || slot.iterations > UINT32_MAX)
      wrong(fmt::format("{} has an iteration count of {}", where, slot.iterations));
  } else if (type == "argon2i" || type == "argon2id") {
    const auto narrow = [&](std::string_view key) {
      return static_cast<uint32_t>(std::min<uint64_t>(number(kdf, key, where), UINT32_MAX));
    };
    slot.argon2 = {.id = type == "argon2id",
                   .passes = narrow("time"),
                   .memory_kib = narrow("memory"),
                   .lanes = narrow("cpus")};
  } else {
    throw Error(ErrorKind::kUnsupported, "key derivation '" + type + "' is not supported");
  }
  return slot;
}

}  // namespace

bool Header::looks_like(ByteSpan bytes, bool second) {
  return bytes.size() >= 8 && load_text(bytes, 0, 6) == (second ? kSecondMagic : kFirstMagic) &&
         load_be<uint16_t>(bytes, 6) == 2;
}

Header Header::decode(ByteSpan bytes, uint64_t offset) {
  Header header;
  header.bytes = load_be<uint64_t>(bytes, 8);
  header.sequence = load_be<uint64_t>(bytes, 16);
  header.uuid = load_text(bytes, 168, 40);
  if (!is_power_of_two(header.bytes) || header.bytes < kLeastHeaderBytes ||
      header.bytes > kMostHeaderBytes)
    throw Error(ErrorKind::kInvalid,
                fmt::format("LUKS2 header: a size of {} bytes is not allowed", header.bytes));
  if (const auto place = load_be<uint64_t>(bytes, 256); place != offset)
    throw Error(ErrorKind::kInvalid,
                fmt::format("LUKS2 header: found at {} but made for {}", offset, place));
  return header;
}

bool Header::checksum_is_right(ByteSpan whole) {
  const auto algorithm = hash_named(load_text(whole, 72, 32));
  if (!algorithm || digest_bytes(*algorithm) > kChecksumBytes) return false;
  std::vector<std::byte> copy(whole.begin(), whole.end());
  std::fill_n(copy.begin() + kChecksumOffset, kChecksumBytes, std::byte{0});
  std::vector<std::byte> found(digest_bytes(*algorithm));
  digest(*algorithm, copy, {}, found);
  return std::equal(found.begin(), found.end(), whole.begin() + kChecksumOffset);
}

Metadata Metadata::decode(std::string_view json, uint64_t headers_bytes) {
  const Value root = Value::parse(json);
  Metadata result;
  if (const Value* requirements = member(root, "config", "the root").find("requirements")) {
    const Value* mandatory = requirements->find("mandatory");
    const auto* items = mandatory == nullptr ? nullptr : mandatory->get_if<Value::Array>();
    if (items != nullptr && !items->empty())
      throw Error(ErrorKind::kUnsupported, "LUKS2 image requires '" + items->front().scalar_text() +
                                               "', which is not supported");
  }
  const Value::Object& segments = object(root, "segments");
  if (segments.size() != 1)
    throw Error(
        ErrorKind::kUnsupported,
        fmt::format("LUKS2 images with {} segments are not supported: one that is encrypted is",
                    segments.size()));
  const auto& [segment_name, segment] = segments.front();
  const std::string where = "segment " + segment_name;
  if (const std::string type = text(segment, "type", where); type != "crypt")
    throw Error(ErrorKind::kUnsupported, "LUKS2 segments of type '" + type + "' are not supported");
  if (segment.find("integrity") != nullptr)
    throw Error(ErrorKind::kUnsupported, "LUKS2 segments with integrity are not supported");
  if (segment.find("flags") != nullptr)
    throw Error(ErrorKind::kUnsupported, "LUKS2 segments with flags are not supported");
  result.payload_offset = number(segment, "offset", where);
  result.encryption = text(segment, "encryption", where);
  result.first_iv = number(segment, "iv_tweak", where);
  const uint64_t sector = number(segment, "sector_size", where);
  if (!is_power_of_two(sector) || sector < 512 || sector > 4096)
    wrong(fmt::format("sectors of {} bytes", sector));
  result.sector_bytes = static_cast<uint32_t>(sector);
  if (result.payload_offset % 512 != 0 || result.payload_offset > INT64_MAX)
    wrong("the payload is at " + std::to_string(result.payload_offset));
  if (text(segment, "size", where) != "dynamic") {
    result.payload_bytes = number(segment, "size", where);
    if (*result.payload_bytes % sector != 0)
      wrong("the payload has a size of " + std::to_string(*result.payload_bytes));
  }

  const Value::Object& digests = object(root, "digests");
  const auto own = std::find_if(digests.begin(), digests.end(), [&](const Value::Member& one) {
    const Value* of = one.second.find("segments");
    return of != nullptr && lists(*of, segment_name);
  });
  if (own == digests.end()) wrong("no digest belongs to " + where);
  const std::string digest_where = "digest " + own->first;
  if (const std::string type = text(own->second, "type", digest_where); type != "pbkdf2")
    throw Error(ErrorKind::kUnsupported, "LUKS2 digests of type '" + type + "' are not supported");
  result.digest.hash = cairn::luks2::hash(own->second, "hash", digest_where);
  result.digest.iterations = number(own->second, "iterations", digest_where);
  result.digest.salt = base64(own->second, "salt", digest_where);
  result.digest.digest = base64(own->second, "digest", digest_where);
  if (result.digest.iterations == 0 || result.digest.iterations > UINT32_MAX ||
      result.digest.digest.size() > 512)
    wrong(digest_where + " makes no sense");
  const Value& slots_of_digest = member(own->second, "keyslots", digest_where);
  const Value::Object& slots = object(root, "keyslots");
  if (slots.size() > kMostSlots) wrong(std::to_string(slots.size()) + " keyslots");
  for (const auto& [name, slot] : slots) {
    if (!lists(slots_of_digest, name)) continue;
    try {
      result.keyslots.push_back(decode_slot(name, slot, headers_bytes));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kUnsupported) throw;
      result.unusable.push_back("keyslot " + name + ": " + error.message());
    }
  }
  return result;
}

CipherSpec Metadata::payload_cipher(size_t key_bytes) const {
  return parse_encryption(encryption, key_bytes);
}

SecureBytes try_slot(const Metadata& metadata, const Keyslot& slot, ByteSpan passphrase,
                     ByteSpan material, KeyWork& work) {
  SecureBytes slot_key(slot.cipher.key_bytes());
  if (slot.iterations != 0) {
    work.pbkdf2("Keyslot " + slot.name, slot.hash, slot_key.size(), slot.iterations);
    pbkdf2(slot.hash, passphrase, bytes_of(slot.salt), slot.iterations, slot_key);
  } else {
    work.argon2("Keyslot " + slot.name, slot.argon2);
    argon2(slot.argon2, passphrase, bytes_of(slot.salt), slot_key);
  }
  work.pbkdf2("The digest of the volume key", metadata.digest.hash, metadata.digest.digest.size(),
              metadata.digest.iterations);
  SecureBytes split(material.size());
  SectorCipher(slot.cipher, slot_key).decrypt(0, material, split);
  SecureBytes key = merge_key(split, slot.key_bytes, slot.stripes, slot.split_hash);
  SecureBytes found(metadata.digest.digest.size());
  pbkdf2(metadata.digest.hash, key, bytes_of(metadata.digest.salt), metadata.digest.iterations,
         found);
  if (!equal_in_constant_time(found, bytes_of(metadata.digest.digest))) key.clear();
  return key;
}

}  // namespace cairn::luks2
