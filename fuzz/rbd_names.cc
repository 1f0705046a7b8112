// Names of images of a Ceph cluster, and maps of extents that such a cluster may send.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "protocol/rbd/extent_map.h"
#include "protocol/rbd/location.h"

namespace {

using namespace cairn;
using namespace cairn::rbd;

void parse(std::string_view text) {
  try {
    const Location location = parse_name("rbd:" + std::string(text));
    if (split_settings(join_settings(location.settings)) != location.settings) std::abort();
  } catch (const Error&) {
  }
}

uint64_t number(const uint8_t* data) {
  uint64_t value = 0;
  std::memcpy(&value, data, sizeof value);
  return value;
}

// Whatever was added, runs are not empty and do not end before what was asked.
void check(const ExtentMap& map) {
  for (uint64_t at = 0; at < UINT64_MAX / 2;) {
    const ExtentMap::Run run = map.at(at, UINT64_MAX - at);
    if (run.length == 0) std::abort();
    if (run.length > UINT64_MAX / 2) break;
    at += run.length;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  parse({reinterpret_cast<const char*>(data), size});
  ExtentMap map;
  map.begin();
  for (; size >= 17; data += 17, size -= 17) {
    const uint64_t offset = number(data + 1), length = number(data + 9);
    if (data[0] % 4 == 0) {
      map.seal();
    } else if (data[0] % 4 == 1) {
      map.add(offset, length);
    } else {
      const auto kind =
          data[0] % 4 == 2 ? ExtentMap::Change::Kind::kWrite : ExtentMap::Change::Kind::kZero;
      ExtentMap::Change change(map, kind, offset, length);
      change.done();
    }
  }
  map.seal();
  check(map);
  return 0;
}
