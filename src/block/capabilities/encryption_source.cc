#include "block/capabilities/encryption_source.h"

#include "base/error.h"
#include "block/node.h"

namespace cairn {

Task<void> adopt_encryption(Node& node, Node& source) {
  if (auto* image = node.as<EncryptionSource>()) return image->adopt_encryption(source);
  throw Error::system(ENOTSUP);
}

}  // namespace cairn
