#pragma once

#include "async/task.h"
#include "block/capability.h"

namespace cairn {

class Node;

// An encrypted format whose images can share their keys.
class EncryptionSource {
 public:
  static constexpr CapabilityTag kCapability{"encryption-source"};

  // Encrypts what will be written as SOURCE, an unlocked node of the same format, is encrypted: the
  // keys and what unlocks them are the same. The image was just made and holds nothing; after a
  // failure it is of no use. Throws kUnsupported when SOURCE is of another format or plain.
  virtual Task<void> adopt_encryption(Node& source) = 0;

 protected:
  ~EncryptionSource() = default;
};

// Throws kUnsupported where NODE has none.
Task<void> adopt_encryption(Node& node, Node& source);

}  // namespace cairn
