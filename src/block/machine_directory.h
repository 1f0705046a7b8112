#pragma once

#include <string>
#include <vector>

#include "block/context.h"

namespace cairn {

// Directories and files of whole virtual machines: .utm, .vmwarevm, .pvm, .vbox.

// The one disk in the machine PATH; empty when PATH is none. Throws kInvalid that lists the disks
// where there are several, or names what the machine's file refers to. Blocks.
std::string disk_of_machine(const Context& context, const std::string& path);

}  // namespace cairn
