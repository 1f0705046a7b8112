#pragma once

#include <string_view>

namespace cairn {

// The version of Cairn, "1.2.3": the one of the project in CMakeLists.txt.
std::string_view version();

}  // namespace cairn
