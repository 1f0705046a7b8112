#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace cairn {

// The one of KNOWN that WORD was most likely meant to be: the one that WORD begins, or else the one
// with the fewest wrong, missing, surplus or exchanged letters. Empty when none is near enough.
std::string closest_name(std::string_view word, const std::vector<std::string>& known);

// "; did you mean 'NAME'?" for a message about WORD, or nothing.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& known);

}  // namespace cairn
