// src/cli: the command line: program names, arguments, one file a verb, what is printed. It may
// include everything below; a library user would miss nothing that is here.
#pragma once

namespace cairn {

// The whole program: runs as `cairn`, or as QEMU's tool when it was started by such a name. Gives
// the exit code.
int run_program(int argc, char** argv);

}  // namespace cairn
