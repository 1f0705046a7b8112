#pragma once

#include <string>
#include <string_view>

namespace cairn {

class Context;

// "; did you mean 'qcow2'?" for a message about a driver NAME that is not there, or nothing. Under
// QEMU's names always nothing.
std::string similar_driver(const Context& context, std::string_view name);

}  // namespace cairn
