#pragma once

#include "block/profile.h"

namespace cairn::qemu {

// The library as QEMU's tools behave.
Profile tools_profile();
// The library's own rules, with QEMU's order of members in JSON.
Profile own_profile();

}  // namespace cairn::qemu
