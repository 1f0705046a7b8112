#pragma once

#include <memory>
#include <optional>

#include "async/task.h"
#include "block/node.h"
#include "crypto/luks2.h"

namespace cairn {

class Secret;

// A LUKS2 volume whose data is one plain encrypted segment: what of it has to be known to read and
// write that data. The headers are never written.
class Luks2Volume {
 public:
  // True when FILE begins with a header of version 2, or has a sound second copy of one.
  static Task<bool> is_there(Node& file);
  // Reads both copies and takes the newer sound one. DETACHED: the payload is in another file.
  // Throws kInvalid, kUnsupported.
  static Task<Luks2Volume> read(Node& file, bool detached);

  uint64_t payload_offset() const { return metadata_.payload_offset; }
  std::optional<uint64_t> payload_bytes() const { return metadata_.payload_bytes; }
  // Finds the key and gives what encrypts the payload. Throws kDenied when no slot takes the
  // passphrase.
  Task<std::shared_ptr<const SectorCipher>> unlock(const Secret& passphrase) const;
  // Members of `info`.
  Value describe() const;

 private:
  Node* file_ = nullptr;
  luks2::Header header_;
  luks2::Metadata metadata_;
};

}  // namespace cairn
