#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace cairn {

// CRC-32C (Castagnoli) of BYTES; SO_FAR is the result for what came before them.
uint32_t crc32c(ByteSpan bytes, uint32_t so_far = 0);
// The same on every processor.
uint32_t crc32c_by_tables(ByteSpan bytes, uint32_t so_far = 0);

}  // namespace cairn
