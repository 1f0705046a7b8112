#include "block/luks_volume.h"

#include <fmt/core.h>

#include <cstdio>

#include "async/runtime.h"
#include "base/arith.h"
#include "block/context.h"
#include "crypto/keyslots.h"

namespace cairn {

using namespace luks1;

namespace {

constexpr unsigned kEraseRounds = 40;
constexpr int64_t kDefaultIterTime = 2000;

HashAlgorithm hash_option(const std::string& word, const char* parameter) {
  const auto hash = hash_named(word);
  if (!hash || !hash_for_creation(*hash))
    throw Error(ErrorKind::kInvalid,
                "Parameter '" + std::string(parameter) + "' does not accept value '" + word + "'");
  return *hash;
}

std::string make_uuid() {
  std::byte bytes[16];
  random_bytes(bytes);
  bytes[6] = (bytes[6] & std::byte{0x0f}) | std::byte{0x40};
  bytes[8] = (bytes[8] & std::byte{0x3f}) | std::byte{0x80};
  std::string text;
  for (size_t i = 0; i < sizeof bytes; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    char pair[3];
    std::snprintf(pair, sizeof pair, "%02x", static_cast<unsigned>(bytes[i]));
    text += pair;
  }
  return text;
}

// What is no text becomes '?': the field is not checked anywhere.
std::string printable(std::string text) {
  for (char& c : text)
    if (c < 0x20 || c > 0x7e) c = '?';
  return text;
}

}  // namespace

LuksCreation LuksCreation::parse(const Options& options) {
  LuksCreation how;
  how.cipher.set_algorithm(options.string("cipher-alg").value_or("aes-256"));
  how.cipher.set_mode(options.string("cipher-mode").value_or("xts"));
  how.cipher.set_iv(options.string("ivgen-alg").value_or("plain64"));
  if (const auto word = options.string("ivgen-hash-alg"))
    how.cipher.iv_hash = hash_option(*word, "ivgen-hash-alg");
  else if (how.cipher.iv == IvGenerator::kEssiv)
    how.cipher.iv_hash = HashAlgorithm::kSha256;
  how.hash = hash_option(options.string("hash-alg").value_or("sha256"), "hash-alg");
  if (const auto time = options.number("iter-time")) how.iter_time = static_cast<int64_t>(*time);
  how.detached = options.boolean("detached-header").value_or(false);
  how.cipher.validate();
  return how;
}

uint64_t LuksCreation::header_bytes() const {
  return kHeaderAreaBytes + kSlots * Header::slot_area_bytes(cipher.key_bytes());
}

// --- reading ---

Task<std::unique_ptr<LuksVolume>> LuksVolume::read(LuksArea area, bool detached) {
  std::unique_ptr<LuksVolume> volume(new LuksVolume(area, detached));
  std::byte bytes[Header::kBytes] = {};
  if (area.offset > static_cast<uint64_t>(INT64_MAX) - Header::kBytes)
    invalid("Request for data outside of extension header");
  if (area.length < Header::kBytes) invalid("Request for data outside of extension header");
  if (area.node->length() < area.offset + Header::kBytes) {
    // Too short to be one; what is there shows whether it claims to be.
    const uint64_t there =
        area.node->length() > area.offset ? area.node->length() - area.offset : 0;
    co_await area.node->read(area.offset, MutableByteSpan(bytes, there));
    if (load_text(bytes, 0, 6) != kMagic) invalid("Volume is not in LUKS format");
    invalid(fmt::format("The LUKS header is cut off after {} bytes", there));
  }
  try {
    co_await area.node->read(area.offset, bytes);
  } catch (Error& error) {
    throw error.context("Could not read encryption header");
  }
  volume->header_ = Header::decode(bytes, detached);
  co_return volume;
}

Task<SecureBytes> LuksVolume::read_material(size_t slot) {
  const uint64_t offset = header_.slots[slot].material_offset;
  SecureBytes material(header_.material_bytes());
  if (offset + material.size() > area_.length)
    invalid("Request for data outside of extension header");
  if (area_.offset + offset + uint64_t{header_.key_bytes} * kStripes > area_.node->length())
    invalid(fmt::format("The key material of keyslot {} is past the end of the file", slot));
  const uint64_t there =
      std::min<uint64_t>(material.size(), area_.node->length() - area_.offset - offset);
  co_await area_.node->read(area_.offset + offset, MutableByteSpan(material).first(there));
  co_return material;
}

Task<SecureBytes> LuksVolume::key_behind(size_t slot, const Secret& passphrase, KeyWork& work) {
  const SecureBytes material = co_await read_material(slot);
  SecureBytes key = co_await run_blocking(
      [&] { return try_slot(header_, slot, bytes_of(passphrase.bytes()), material, work); });
  co_return key;
}

Task<SecureBytes> LuksVolume::find_key(const Secret& passphrase) {
  KeyWork work(area_.node->context().key_budget);
  for (size_t slot = 0; slot < kSlots; ++slot) {
    if (!header_.slots[slot].active) continue;
    SecureBytes key = co_await key_behind(slot, passphrase, work);
    if (!key.empty()) co_return key;
  }
  throw Error(ErrorKind::kDenied, "Invalid password, cannot unlock any keyslot");
}

Task<void> LuksVolume::unlock(const Secret& passphrase) { key_ = co_await find_key(passphrase); }

std::shared_ptr<const SectorCipher> LuksVolume::cipher() const {
  return std::make_shared<SectorCipher>(header_.cipher, key_);
}

// --- writing ---

Task<void> LuksVolume::write(uint64_t offset, ByteSpan bytes) {
  if (bytes.size() > area_.length || offset > area_.length - bytes.size())
    invalid("Request for data outside of extension header");
  return area_.node->write(area_.offset + offset, bytes);
}

Task<void> LuksVolume::write_header() {
  std::byte bytes[Header::kBytes];
  header_.encode(bytes);
  co_await write(0, bytes);
  co_await area_.node->flush();
}

Task<void> LuksVolume::activate(size_t slot, const Secret& passphrase, int64_t iter_time) {
  const SecureBytes material = co_await run_blocking([&] {
    const uint32_t iterations = pbkdf2_iterations(header_.hash, header_.key_bytes, iter_time, 1);
    return fill_slot(header_, slot, bytes_of(passphrase.bytes()), key_, iterations);
  });
  co_await write(header_.slots[slot].material_offset, material);
  co_await area_.node->flush();
  co_await write_header();
}

Task<void> LuksVolume::erase(size_t slot) {
  header_.slots[slot].active = false;
  header_.slots[slot].iterations = 0;
  header_.slots[slot].salt = {};
  co_await write_header();
  std::vector<std::byte> noise(header_.material_bytes());
  std::exception_ptr error;
  for (unsigned round = 0; round < kEraseRounds && !error; ++round) {
    try {
      random_bytes(noise);
    } catch (...) {
      // One pass of zeroes is better than nothing.
      error = std::current_exception();
      std::fill(noise.begin(), noise.end(), std::byte{0});
    }
    co_await write(header_.slots[slot].material_offset, noise);
    co_await area_.node->flush();
  }
  if (error) std::rethrow_exception(error);
}

Task<std::unique_ptr<LuksVolume>> LuksVolume::create(LuksArea area, const LuksCreation& how,
                                                     const Secret& passphrase) {
  std::unique_ptr<LuksVolume> volume(new LuksVolume(area, how.detached));
  volume->header_ = make_header(how.cipher, how.hash, how.detached);
  volume->header_.uuid = make_uuid();
  Header& header = volume->header_;
  volume->key_ = co_await run_blocking([&] {
    const uint32_t iterations = pbkdf2_iterations(header.hash, kDigestBytes, how.iter_time, 8);
    return make_volume_key(header, iterations);
  });
  // Unused slots hold nothing old: what grew by itself is zero, the rest is made so.
  if (!area.node->reads_zero_when_created())
    co_await area.node->write_zeroes(area.offset, header.end_of_slots());
  co_await volume->activate(0, passphrase, how.iter_time);
  co_return volume;
}

// --- key slots ---

size_t LuksVolume::active_slots() const {
  size_t count = 0;
  for (const Slot& slot : header_.slots) count += slot.active ? 1 : 0;
  return count;
}

Task<void> LuksVolume::amend(Context& context, const Options& options, bool force) {
  const auto state = options.string("state");
  if (!state) invalid("Parameter 'state' is missing");
  if (*state == "active") return add_slot(context, options, force);
  if (*state == "inactive") return erase_slots(context, options, force);
  invalid("Parameter 'state' does not accept value '" + *state + "'");
}

Task<void> LuksVolume::add_slot(Context& context, const Options& options, bool force) {
  const auto new_secret = options.string("new-secret");
  if (!new_secret) invalid("'new-secret' is required to activate a keyslot");
  if (options.has("old-secret")) invalid("'old-secret' must not be given when activating keyslots");
  const int64_t iter_time = static_cast<int64_t>(
      options.number("iter-time").value_or(static_cast<uint64_t>(kDefaultIterTime)));
  size_t slot = kSlots;
  if (const auto chosen = options.number("keyslot")) {
    if (*chosen >= kSlots)
      invalid(fmt::format("Invalid keyslot {} specified, must be between 0 and 7",
                          static_cast<uint32_t>(*chosen)));
    slot = *chosen;
    if (header_.slots[slot].active && !force)
      invalid(fmt::format("Refusing to overwrite active keyslot {} - please erase it first", slot));
  } else {
    for (size_t i = kSlots; i-- != 0;)
      if (!header_.slots[i].active) slot = i;
    if (slot == kSlots) invalid("Can't add a keyslot - all keyslots are in use");
  }
  if (const auto id = options.string("secret")) {
    SecureBytes found = co_await find_key(context.secret(*id));
    key_ = std::move(found);
  }
  if (key_.empty()) throw Error(ErrorKind::kDenied, "Invalid password, cannot unlock any keyslot");
  const Secret& passphrase = context.secret(*new_secret);
  co_await activate(slot, passphrase, iter_time);
}

Task<void> LuksVolume::erase_slots(Context& context, const Options& options, bool force) {
  for (const char* key : {"new-secret", "iter-time", "secret"})
    if (options.has(key))
      invalid("'" + std::string(key) + "' must not be given when erasing keyslots");
  const auto old_id = options.string("old-secret");
  const Secret* old_secret = nullptr;
  if (old_id) old_secret = &context.secret(*old_id);
  KeyWork work(context.key_budget);
  if (const auto chosen = options.number("keyslot")) {
    if (*chosen >= kSlots)
      invalid(fmt::format("Invalid keyslot {} specified, must be between 0 and 7",
                          static_cast<int32_t>(*chosen)));
    const size_t slot = *chosen;
    if (old_secret != nullptr) {
      SecureBytes key;
      if (header_.slots[slot].active) key = co_await key_behind(slot, *old_secret, work);
      if (key.empty())
        invalid(fmt::format(
            "Given keyslot {} doesn't contain the given old password for erase operation", slot));
    }
    if (!header_.slots[slot].active && !force)
      invalid(fmt::format("Given keyslot {} is already erased (inactive) ", slot));
    if (header_.slots[slot].active && active_slots() == 1 && !force)
      invalid(
          fmt::format("Attempt to erase the only active keyslot {} which will erase all the data "
                      "in the image irreversibly - refusing operation",
                      slot));
    co_await erase(slot);
    co_return;
  }
  if (old_secret == nullptr)
    invalid(
        "To erase keyslot(s), either explicit keyslot index or the password currently "
        "contained in them must be given");
  std::vector<size_t> matching;
  for (size_t slot = 0; slot < kSlots; ++slot) {
    if (!header_.slots[slot].active) continue;
    const SecureBytes key = co_await key_behind(slot, *old_secret, work);
    if (!key.empty()) matching.push_back(slot);
  }
  if (matching.empty()) invalid("No keyslots match given (old) password for erase operation");
  if (matching.size() == active_slots() && !force)
    invalid(
        "All the active keyslots match the (old) password that was given and erasing them will "
        "erase all the data in the image irreversibly - refusing operation");
  for (const size_t slot : matching) co_await erase(slot);
}

// --- info ---

void LuksVolume::describe(Value& data) const {
  data.set("ivgen-alg", header_.cipher.iv_name());
  data.set("detached-header", detached_ && header_.payload_offset == 0);
  data.set("hash-alg", header_.hash_name);
  data.set("cipher-alg", header_.cipher.algorithm_name());
  data.set("uuid", printable(header_.uuid));
  if (header_.cipher.iv == IvGenerator::kEssiv)
    data.set("ivgen-hash-alg", name_of(*header_.cipher.iv_hash));
  data.set("cipher-mode", header_.cipher.mode_name());
  Value slots = Value::array();
  for (const Slot& slot : header_.slots) {
    Value one = Value::object();
    one.set("active", slot.active);
    if (slot.active) one.set("iters", uint64_t{slot.iterations});
    one.set("key-offset", slot.material_offset);
    if (slot.active) one.set("stripes", uint64_t{slot.stripes});
    slots.push_back(std::move(one));
  }
  data.set("slots", std::move(slots));
  data.set("payload-offset", header_.payload_offset);
  data.set("master-key-iters", uint64_t{header_.digest_iterations});
}

}  // namespace cairn
