#include "crypto/keyslots.h"

#include "base/arith.h"
#include "crypto/antiforensic.h"

namespace cairn::luks1 {

SecureBytes try_slot(const Header& header, size_t index, ByteSpan passphrase, ByteSpan material,
                     KeyWork& work) {
  const Slot& slot = header.slots[index];
  const std::string name = "Keyslot " + std::to_string(index);
  work.pbkdf2(name, header.hash, header.key_bytes, slot.iterations);
  work.pbkdf2("The digest of the volume key", header.hash, kDigestBytes, header.digest_iterations);
  SecureBytes slot_key(header.key_bytes);
  pbkdf2(header.hash, passphrase, slot.salt, slot.iterations, slot_key);
  SecureBytes split(material.size());
  SectorCipher(header.cipher, slot_key).decrypt(0, material, split);
  SecureBytes key = merge_key(split, header.key_bytes, slot.stripes, header.hash);
  std::byte found[kDigestBytes];
  pbkdf2(header.hash, key, header.digest_salt, header.digest_iterations, found);
  if (!equal_in_constant_time(found, header.digest)) key.clear();
  return key;
}

SecureBytes fill_slot(Header& header, size_t index, ByteSpan passphrase, ByteSpan key,
                      uint32_t iterations) {
  Slot& slot = header.slots[index];
  slot.active = true;
  slot.iterations = iterations;
  random_bytes(slot.salt);
  SecureBytes slot_key(header.key_bytes);
  pbkdf2(header.hash, passphrase, slot.salt, iterations, slot_key);
  SecureBytes material = split_key(key, slot.stripes, header.hash);
  material.resize(align_up(material.size(), kSectorBytes));
  SectorCipher(header.cipher, slot_key).encrypt(0, material, material);
  return material;
}

SecureBytes make_volume_key(Header& header, uint32_t digest_iterations) {
  SecureBytes key(header.key_bytes);
  random_bytes(key);
  random_bytes(header.digest_salt);
  header.digest_iterations = digest_iterations;
  pbkdf2(header.hash, key, header.digest_salt, digest_iterations, header.digest);
  return key;
}

}  // namespace cairn::luks1
