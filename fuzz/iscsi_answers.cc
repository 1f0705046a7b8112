// What iSCSI units answer when a disk is opened, and where they have blocks.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "protocol/iscsi/answers.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn;
  using namespace cairn::iscsi;
  if (size == 0) return 0;
  const ByteSpan answer(reinterpret_cast<const std::byte*>(data + 1), size - 1);
  Unit unit;
  const ByteSpan page = page_of(answer, data[0]);
  switch (data[0] % 8) {
    case 0:
      read_inquiry(answer, &unit);
      break;
    case 1:
      read_modes(answer, &unit);
      break;
    case 2:
      read_capacity10(answer, &unit);
      break;
    case 3:
      read_capacity16(answer, &unit);
      break;
    case 4:
      read_limits(page, &unit);
      break;
    case 5:
      read_provisioning_page(page, &unit);
      break;
    case 6:
      read_designators(page, &unit);
      if (unit.designator.bytes.size() > 20) std::abort();
      break;
    default:
      if (read_provisioning(answer).size() > answer.size() / 16) std::abort();
  }
  return 0;
}
