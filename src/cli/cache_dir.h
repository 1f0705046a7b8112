#pragma once

#include <vector>

#include "cli/session.h"

namespace cairn::cli {

// `--cache-dir DIR`, `--cache-size SIZE` and `--cache-trust-name`, under our own name: what is read
// of images on servers is kept in DIR (docs/cache-dir.md).
const std::vector<Flag>& cache_flags();

// Does what ARGUMENTS say. Throws UsageError when a size or trust is given without a directory.
void use_cache(Session& session, const Arguments& arguments);
// The same for programs that parse their own command line: takes the options out of WORDS.
void take_cache(Session& session, std::vector<char*>& words);

}  // namespace cairn::cli
