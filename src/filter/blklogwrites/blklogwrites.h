#pragma once

#include <memory>

#include "block/driver.h"

namespace cairn {

// Writes down what is written, in the form that the Linux kernel's device mapper target log-writes
// has, so that its replay tools read it.
std::unique_ptr<Driver> make_blklogwrites_driver();

}  // namespace cairn
