#pragma once

#include <cstdint>
#include <string_view>

#include "block/context.h"

namespace cairn {

// Calls Context::progress during long work, once in so many steps.
inline void report_work(const Context& context, std::string_view phase, uint64_t done,
                        uint64_t total, uint64_t steps = 1) {
  if (context.progress && (done % steps == 0 || done == total))
    context.progress(phase, done, total);
}

}  // namespace cairn
