#pragma once

#include "base/value.h"

namespace cairn::qemu {

// A MemberOrder: the place of a member in the JSON outputs of QEMU's tools, which scripts and tests
// rely on.
int json_order(std::string_view name);

}  // namespace cairn::qemu
