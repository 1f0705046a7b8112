#pragma once

#include <cstdint>

#include "base/bytes.h"

namespace cairn::nvme {

// Where the data of a command is: physical region pages, as the two fields of the command.
struct Prps {
  uint64_t first = 0, second = 0;
};

// The longest buffer that one page of a list describes, wherever in a page it begins.
constexpr uint64_t most_prp_bytes(uint64_t page_bytes) { return page_bytes / 8 * page_bytes; }

// Describes LENGTH bytes from the address IOVA on. What does not fit the command is written to
// LIST, a page of PAGE_BYTES at LIST_IOVA. Throws kInvalid when IOVA is no multiple of 4 or the
// range is longer than most_prp_bytes().
Prps make_prps(uint64_t iova, uint64_t length, uint64_t page_bytes, uint64_t list_iova,
               MutableByteSpan list);

}  // namespace cairn::nvme
