// src/cli: the command line: program names, flags, one file a verb, what is printed, exit codes.
// What a verb does is in src/operation; a library user would miss nothing that is here. Of the
// rooms below that it includes these helpers alone:
//   async/async.h        locks and groups of tasks (the shell's commands)
//   base/buffer.h        memory for direct I/O (the same)
//   base/similar.h       "did you mean"
//   base/size.h          sizes as text
//   base/unfinished.h    files that go, or are named, when a signal ends the program
//   base/version.h       what --version prints
//   block/capabilities/capabilities.h  what only some images can do (the same), break points
//   block/driver.h       the registry: names, schemas and features of formats
#pragma once

namespace cairn {

// The whole program: runs as `cairn`, or as QEMU's tool when it was started by such a name. Gives
// the exit code.
int run_program(int argc, char** argv);

}  // namespace cairn
