#include "cli/io/io.h"

namespace cairn::cli {

std::vector<Flag> io_flags() {
  return {
      {'c', "cmd", "COMMAND", "run this command; may be given several times"},
      {'f', "format", "FMT", "format of the image (detected)"},
      {'r', "read-only", nullptr, "open the image read-only"},
      {'s', "snapshot", nullptr, "writes go to a temporary overlay and are lost"},
      {'t', "cache", "MODE",
       "none, writeback, writethrough (when not given), directsync or unsafe"},
      {'n', "nocache", nullptr, "as --cache=none"},
      {'C', "copy-on-read", nullptr, "store in the image what is read from its backing file"},
      {'d', "discard", "MODE", "unmap (when not given) or ignore"},
      {'m', "misalign", nullptr, "use buffers that are not aligned for direct I/O"},
      {'i', "aio", "MODE", "accepted; the engine is chosen by CAIRN_ENGINE"},
      {'k', "native-aio", nullptr, "as --aio=native"},
      {'T', "trace", "PATTERN", "accepted for compatibility"},
      kOutputFlag,
      kForceShareFlag,
      kImageOptsFlag,
      kObjectFlag,
      {kUntrusted, "untrusted", nullptr, "do not open files that the image refers to"},
  };
}

}  // namespace cairn::cli
