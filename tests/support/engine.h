#pragma once

#include <cstdlib>
#include <string_view>

#include "async/runtime.h"

namespace cairn::testing_support {

// The engine that this run of the tests is about: ./test runs them with each.
inline EngineKind engine_under_test() {
  const char* wish = std::getenv("CAIRN_ENGINE");
  return wish != nullptr && std::string_view(wish) == "threads" ? EngineKind::kThreads
                                                                : EngineKind::kAuto;
}

}  // namespace cairn::testing_support
