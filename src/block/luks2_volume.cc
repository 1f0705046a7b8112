#include "block/luks2_volume.h"

#include <algorithm>

#include "async/runtime.h"
#include "block/context.h"
#include "block/secrets.h"

namespace cairn {

namespace {

struct Copy {
  luks2::Header header;
  std::vector<std::byte> bytes;
};

// The copy at OFFSET when it is whole; nothing when it is not. Headers are small by their limits.
Task<std::optional<Copy>> read_copy(Node& file, uint64_t offset) {
  std::optional<Copy> result;
  if (file.length() < offset + luks2::Header::kBytes) co_return result;
  Copy copy;
  copy.bytes.resize(luks2::Header::kBytes);
  co_await file.read(offset, copy.bytes);
  if (!luks2::Header::looks_like(copy.bytes, offset != 0)) co_return result;
  try {
    copy.header = luks2::Header::decode(copy.bytes, offset);
  } catch (const Error&) {
    // As good as not there: the other copy may be whole.
    co_return result;
  }
  if (offset != 0 && copy.header.bytes != offset) co_return result;
  if (file.length() < offset + copy.header.bytes) co_return result;
  copy.bytes.resize(copy.header.bytes);
  co_await file.read(offset, copy.bytes);
  if (luks2::Header::checksum_is_right(copy.bytes)) result = std::move(copy);
  co_return result;
}

}  // namespace

Task<bool> Luks2Volume::is_there(Node& file) {
  std::byte head[8] = {};
  if (file.length() < sizeof head) co_return false;
  co_await file.read(0, head);
  co_return luks2::Header::looks_like(head, false);
}

Task<Luks2Volume> Luks2Volume::read(Node& file, bool detached) {
  std::optional<Copy> best = co_await read_copy(file, 0);
  for (uint64_t offset = luks2::kLeastHeaderBytes; offset <= luks2::kMostHeaderBytes; offset *= 2) {
    if (best && best->header.bytes != offset) continue;
    std::optional<Copy> second = co_await read_copy(file, offset);
    if (second && (!best || second->header.sequence > best->header.sequence))
      best = std::move(second);
  }
  if (!best) throw Error(ErrorKind::kInvalid, "Neither of the two LUKS2 headers is whole");
  Luks2Volume volume;
  volume.file_ = &file;
  volume.header_ = best->header;
  const uint64_t json_bytes = best->header.bytes - luks2::Header::kBytes;
  volume.metadata_ = luks2::Metadata::decode(
      load_text(best->bytes, luks2::Header::kBytes, json_bytes), 2 * best->header.bytes);
  if (!detached && volume.metadata_.payload_offset < 2 * best->header.bytes)
    throw Error(ErrorKind::kInvalid, "LUKS payload is overlapping with the header");
  for (const luks2::Keyslot& slot : volume.metadata_.keyslots) {
    if (!detached && slot.offset + slot.bytes > volume.metadata_.payload_offset)
      throw Error(ErrorKind::kInvalid,
                  "Keyslot " + slot.name + " is overlapping with the encrypted payload");
  }
  co_return volume;
}

Task<std::shared_ptr<const SectorCipher>> Luks2Volume::unlock(const Secret& passphrase) const {
  KeyWork work(file_->context().key_budget);
  for (const luks2::Keyslot& slot : metadata_.keyslots) {
    if (slot.offset + slot.bytes > file_->length())
      throw Error(ErrorKind::kInvalid,
                  "The key material of keyslot " + slot.name + " is past the end of the file");
    SecureBytes material(slot.bytes);
    co_await file_->read(slot.offset, material);
    const SecureBytes key = co_await run_blocking([&] {
      return luks2::try_slot(metadata_, slot, bytes_of(passphrase.bytes()), material, work);
    });
    if (key.empty()) continue;
    std::shared_ptr<const SectorCipher> cipher = std::make_shared<SectorCipher>(
        metadata_.payload_cipher(key.size()), key, metadata_.sector_bytes, metadata_.first_iv);
    co_return cipher;
  }
  Error error(ErrorKind::kDenied, "Invalid password, cannot unlock any keyslot");
  for (const std::string& reason : metadata_.unusable) error.hint(reason);
  throw error;
}

Value Luks2Volume::describe() const {
  Value data = Value::object();
  data.set("version", 2);
  data.set("encryption", metadata_.encryption);
  data.set("sector-size", uint64_t{metadata_.sector_bytes});
  data.set("uuid", header_.uuid);
  data.set("payload-offset", metadata_.payload_offset);
  Value slots = Value::array();
  for (const luks2::Keyslot& slot : metadata_.keyslots) {
    Value one = Value::object();
    one.set("id", slot.name);
    one.set("kdf", slot.iterations != 0 ? "pbkdf2" : slot.argon2.id ? "argon2id" : "argon2i");
    one.set("key-offset", slot.offset);
    slots.push_back(std::move(one));
  }
  data.set("slots", std::move(slots));
  return data;
}

}  // namespace cairn
