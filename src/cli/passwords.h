#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::cli {

// Where a word of the command line has a password, in names (scheme://USER:PASSWORD@HOST,
// iscsi://USER%PASSWORD@HOST, rbd:…:key=KEY) and in options (password=, "password": "…").
struct PasswordPlace {
  size_t offset, length;
};
std::vector<PasswordPlace> passwords_in(std::string_view word);

// From now on conceal() knows the passwords of WORD.
void remember_passwords(std::string_view word);
// TEXT with *** in place of them, where they are written as the words had them.
std::string conceal(std::string text);

}  // namespace cairn::cli
