#pragma once

#include "block/driver.h"

namespace cairn::vhdx {

// Options of creation, as QEMU names them and more.
const OptionSchema& creation_options();
// NAME as the locator of the image CHILD says it. Throws kInvalid when it cannot.
std::string relative_parent(const std::string& name, const std::string& child);
Task<void> create(Context& context, CreateRequest request);

}  // namespace cairn::vhdx
