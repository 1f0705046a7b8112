#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cli/session.h"

namespace cairn::cli {

// What an untrusted image may cost.
struct Budget {
  uint64_t memory = uint64_t{1} << 30;  // bytes
  uint64_t cpu_seconds = 600;
  std::optional<uint64_t> output;  // bytes of data; none: a hundred times the sources and 1 GiB
  // "memory=SIZE,cpu=SECONDS,output=SIZE". Throws kInvalid.
  static Budget parse(const std::string& text);
};

// The files that the work may reach; nothing else on the machine can be opened.
struct Reach {
  std::vector<std::string> readable;
  std::vector<std::string> writable;
  std::string replaced = {};  // the writable file that exists and is to be replaced
  unsigned temporary = 0;     // files for what comes through pipes or goes there
  bool create = false;  // those that are not there are made empty, and removed when work failed
};
// What the command line of VERB names.
Reach reach_of(const Verb& verb, const Arguments& arguments);

// Verbs that read untrusted images.
bool can_be_sandboxed(std::string_view verb);

// Runs WORK in a child process that is shut in: landlock lets it open REACH alone, seccomp takes
// away every system call that reading and writing files does not need, and limits bound memory and
// processor time. Gives WORK's exit code, or 1 after an error that names what ended the child. What
// the kernel cannot do leads to a warning. Before the first thread is started.
int run_sandboxed(Session& session, Reach reach, const Budget& budget,
                  const std::function<int()>& work);

}  // namespace cairn::cli
