#pragma once

#include "crypto/hash.h"

namespace cairn {

// The anti-forensic splitter of LUKS: KEY becomes STRIPES blocks of its length, all of which are
// needed to get it back.
SecureBytes split_key(ByteSpan key, size_t stripes, HashAlgorithm hash);
// The key of KEY_BYTES out of what split_key() made; MATERIAL holds at least STRIPES blocks.
SecureBytes merge_key(ByteSpan material, size_t key_bytes, size_t stripes, HashAlgorithm hash);

}  // namespace cairn
