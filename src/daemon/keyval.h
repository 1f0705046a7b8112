#pragma once

#include <string_view>

#include "base/value.h"

namespace cairn::daemon {

// "a.b=1,a.c.0=x" as nested objects and arrays of texts; ",," stands for one comma. A first word
// without '=' is the value of IMPLIED_KEY. A text that begins with '{' is JSON. Throws kInvalid.
struct Keyval {
  Value value;
  bool help = false;  // asked for by the word "help" or "?"
  bool json = false;
};
Keyval parse_keyval(std::string_view text, std::string_view implied_key);

}  // namespace cairn::daemon
