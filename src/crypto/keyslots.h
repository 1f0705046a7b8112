#pragma once

#include "crypto/key_budget.h"
#include "crypto/luks1.h"

// What passphrases, key slots and the volume's key have to do with each other, without I/O: key
// material comes and goes as bytes. All of it is CPU work.
namespace cairn::luks1 {

// The key that SLOT of HEADER gives with PASSPHRASE, when it is the volume's; empty when it is not.
// MATERIAL is what stands at the slot's offset.
SecureBytes try_slot(const Header& header, size_t slot, ByteSpan passphrase, ByteSpan material,
                     KeyWork& work);

// Fills SLOT in HEADER for PASSPHRASE, active, with a new salt and ITERATIONS; gives the material
// to write at its offset.
SecureBytes fill_slot(Header& header, size_t slot, ByteSpan passphrase, ByteSpan key,
                      uint32_t iterations);

// A new key, and its digest in HEADER.
SecureBytes make_volume_key(Header& header, uint32_t digest_iterations);

}  // namespace cairn::luks1
