#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

// A disk without content: the smallest complete driver, which docs/adding-a-driver.md walks
// through.
std::unique_ptr<Driver> make_null_driver(std::string_view name);

}  // namespace cairn
