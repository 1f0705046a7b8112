#include <chrono>
#include <cstdlib>

#include "cli/report.h"
#include "cli/verbs.h"
#include "operation/mount.h"

namespace cairn::cli {
namespace {

int run_umount(Session& session, Arguments& arguments) {
  const auto& words = arguments.words();
  if (words.size() != 1) throw UsageError{"Expecting one mount point"};
  const std::string& name = words[0];
  const std::string seconds = arguments.value_or(kTimeout, "10");
  if (seconds.empty() || seconds.size() > 6 ||
      seconds.find_first_not_of("0123456789") != std::string::npos)
    throw UsageError{"--timeout is a number of seconds, not '" + seconds + "'"};
  const std::string path =
      operation::unmount(session.caller(), name, std::chrono::seconds(std::atoi(seconds.c_str())));
  if (session.json) {
    Value out = Value::object();
    out.set("mount-point", path);
    print_report(session, out);
  }
  return 0;
}

}  // namespace

Verb umount_verb() {
  return {.name = "umount",
          .summary = "unmounts what `mount` shows, and waits until the image is closed",
          .synopsis = "[--timeout SECONDS] PATH",
          .flags = {{kTimeout, "timeout", "SECONDS", "how long to wait at most (10)"}},
          .run = run_umount,
          .own = true};
}

}  // namespace cairn::cli
