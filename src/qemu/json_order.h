#pragma once

#include <string_view>

namespace cairn {

inline constexpr int kNoRank = 1 << 20;

// The place of a member in the JSON outputs of QEMU's tools, which scripts and tests rely on:
// members of one object are printed in ascending rank. kNoRank for names that have none.
int member_rank(std::string_view name);

}  // namespace cairn
