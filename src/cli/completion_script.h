#pragma once

#include <string>

namespace cairn {
class Registry;
}

namespace cairn::cli {

enum class Shell { kBash, kZsh };

// A script that makes SHELL complete command lines of cairn: verbs, their options and words, the
// formats of REGISTRY, and what a daemon has.
std::string completion_script(const Registry& registry, Shell shell);

}  // namespace cairn::cli
