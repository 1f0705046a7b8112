#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/session.h"

namespace cairn::cli {

// WORD as one of the options -readconfig and -iscsi of QEMU's emulator, with one dash or two; empty
// when it is none.
std::string_view configuration_option(std::string_view word);

// Does what OPTION, one of those two without dashes, asks for with VALUE.
void configure(const Session& session, std::string_view option, const std::string& value);

// Does the same for both options wherever they are in WORDS, the line of a program with the options
// FLAGS that does not know them, and takes them out. Throws UsageError when one lacks its value.
void take_configuration(const Session& session, const std::vector<Flag>& flags,
                        std::vector<char*>& words);

}  // namespace cairn::cli
