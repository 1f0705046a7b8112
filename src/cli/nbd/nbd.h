// src/cli/nbd: the programs around the NBD server: `qemu-nbd` (as a verb: `cairn nbd`) with its
// options, `cairn serve` for several images at once, listing the exports of a server, and handing
// an export to the kernel.
#pragma once

#include "cli/session.h"

namespace cairn::cli {

// ARGV[0] is the program's name.
int run_qemu_nbd(Session& session, int argc, char** argv);
// Its options.
std::vector<Flag> nbd_flags();
// `cairn serve`.
Verb serve_verb();

}  // namespace cairn::cli
