#pragma once

#include "cli/session.h"

namespace cairn::cli {

// The limits of key derivation, of every verb that opens images under Cairn's name.
extern const Flag kKeyBudgetFlag;
// Sets those of CONTEXT when the option was given. Throws kInvalid.
void take_key_budget(const Arguments& arguments, Context& context);

}  // namespace cairn::cli
