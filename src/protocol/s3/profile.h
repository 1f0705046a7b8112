#pragma once

#include <map>
#include <string>
#include <string_view>

namespace cairn::s3 {

// The settings of the profile NAME in TEXT, a file with sections such as ~/.aws/credentials
// ("[NAME]") or ~/.aws/config ("[profile NAME]", "[default]"); keys in small letters. Lines that
// are no settings, and nested ones, mean nothing. FOUND is set when there is such a section.
std::map<std::string, std::string> parse_profile(std::string_view text, std::string_view name,
                                                 bool* found);

}  // namespace cairn::s3
