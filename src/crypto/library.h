#pragma once

#include <gcrypt.h>

namespace cairn {

// Readies libgcrypt at the first call; every function that uses it begins with this.
void ready_gcrypt();
// Throws kInvalid that names WHAT when ERROR is one.
void check_gcrypt(gcry_error_t error, const char* what);

}  // namespace cairn
