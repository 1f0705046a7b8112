#include "block/capabilities/identified.h"

#include <fmt/core.h>

#include <ctime>

#include "block/node.h"
#include "platform/system.h"

namespace cairn {

Identity identity_of(const Node& node) {
  if (const auto* known = node.as<Identified>()) return known->identity();
  return {};
}

std::string modified_at(int64_t seconds, uint32_t nanoseconds) {
  struct tm parts = {};
  if (!platform::to_utc(seconds, &parts))
    return fmt::format("modified {}.{:09} s after 1970", seconds, nanoseconds);
  return fmt::format("modified {:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:09} UTC",
                     int64_t{parts.tm_year} + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour,
                     parts.tm_min, parts.tm_sec, nanoseconds);
}

}  // namespace cairn
