#include "protocol/nvme/prp.h"

#include "base/arith.h"
#include "base/error.h"

namespace cairn::nvme {

Prps make_prps(uint64_t iova, uint64_t length, uint64_t page_bytes, uint64_t list_iova,
               MutableByteSpan list) {
  if (!is_aligned(iova, 4)) invalid("the address of a transfer is not aligned");
  if (length > most_prp_bytes(page_bytes) || !checked_add(iova, length))
    invalid("a transfer is too long");
  Prps result{.first = iova};
  const uint64_t in_first = page_bytes - iova % page_bytes;
  if (length <= in_first) return result;
  const uint64_t second = iova + in_first;
  if (length <= in_first + page_bytes) {
    result.second = second;
    return result;
  }
  const uint64_t pages = div_ceil(length - in_first, page_bytes);
  for (uint64_t i = 0; i < pages; ++i) store_le<uint64_t>(list, i * 8, second + i * page_bytes);
  result.second = list_iova;
  return result;
}

}  // namespace cairn::nvme
