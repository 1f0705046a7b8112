#pragma once

#include <string>
#include <string_view>

namespace cairn {

// What to say to people whose FILENAME, which leads nowhere here, is how Windows or macOS call a
// drive, or how Linux calls a drive that this machine lacks; empty for all other names.
std::string foreign_name_advice(std::string_view filename);

}  // namespace cairn
