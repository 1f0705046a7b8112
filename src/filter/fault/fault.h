#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

// Fails on purpose: after so many operations of one kind, one or all further ones end with an
// error. The options are in the schema.
std::unique_ptr<Driver> make_fault_driver();

}  // namespace cairn
