#pragma once

#include <memory>
#include <optional>
#include <string>

#include "async/task.h"
#include "base/options.h"
#include "block/node.h"
#include "crypto/key_budget.h"
#include "crypto/luks1.h"

namespace cairn {

class Context;
class Secret;

// Where a LUKS header is: at the start of a file, or in the window that another format gave it.
struct LuksArea {
  Node* node = nullptr;
  uint64_t offset = 0;
  // Bytes of the window; nothing is read or written after them.
  uint64_t length = UINT64_MAX;
};

// How a volume is to be made: the options of `create`, without the prefix that formats with several
// kinds of encryption put before them.
struct LuksCreation {
  CipherSpec cipher;
  HashAlgorithm hash = HashAlgorithm::kSha256;
  int64_t iter_time = 2000;  // ms for a key slot
  bool detached = false;

  // Throws what QEMU says.
  static LuksCreation parse(const Options& options);
  // Bytes from the start of the header to the payload.
  uint64_t header_bytes() const;
};

// The key slots of a LUKS1 volume in use. What needs CPU runs on the pool.
//
// What a crash may leave behind: a passphrase that is being added does not open the volume, one
// that is being erased does or does not. A slot's material is on disk before the header that makes
// it active, and the header that makes it inactive is on disk before the material is overwritten.
class LuksVolume {
 public:
  // Reads and checks the header. DETACHED: the payload is in another file. Throws what QEMU says.
  static Task<std::unique_ptr<LuksVolume>> read(LuksArea area, bool detached);
  // Makes a header with PASSPHRASE in slot 0, and writes it.
  static Task<std::unique_ptr<LuksVolume>> create(LuksArea area, const LuksCreation& how,
                                                  const Secret& passphrase);

  const luks1::Header& header() const { return header_; }
  // Finds the volume's key. Throws kDenied with QEMU's words when no slot takes the passphrase.
  Task<void> unlock(const Secret& passphrase);
  bool unlocked() const { return !key_.empty(); }
  // What encrypts the payload of an unlocked volume.
  std::shared_ptr<const SectorCipher> cipher() const;

  // Changes key slots: the options state, keyslot, new-secret, old-secret, iter-time and secret,
  // with QEMU's rules and words.
  Task<void> amend(Context& context, const Options& options, bool force);

  // Members of `info`.
  void describe(Value& data) const;

 private:
  LuksVolume(LuksArea area, bool detached) : area_(area), detached_(detached) {}
  Task<SecureBytes> read_material(size_t slot);
  Task<SecureBytes> key_behind(size_t slot, const Secret& passphrase, KeyWork& work);
  Task<SecureBytes> find_key(const Secret& passphrase);
  Task<void> activate(size_t slot, const Secret& passphrase, int64_t iter_time);
  Task<void> erase(size_t slot);
  Task<void> write(uint64_t offset, ByteSpan bytes);
  Task<void> write_header();
  Task<void> add_slot(Context& context, const Options& options, bool force);
  Task<void> erase_slots(Context& context, const Options& options, bool force);
  size_t active_slots() const;

  LuksArea area_;
  bool detached_;
  luks1::Header header_;
  SecureBytes key_;
};

}  // namespace cairn
