// src/cli/elsewhere: what the command line says where there is no Linux for what was asked.
#include "cli/nbd/background.h"
#include "cli/nbd/vhost_user.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

// The verb stays in the list: help says why it does nothing here.
Verb absent(std::string_view name, std::string_view summary) {
  return {.name = name,
          .summary = summary,
          .synopsis = "",
          .flags = {},
          .run = [](Session&, Arguments&) -> int {
            throw Error(ErrorKind::kUnsupported, "This verb works on Linux only");
          },
          .own = true};
}

}  // namespace

Verb mount_verb() { return absent("mount", "shows a disk as a file (on Linux)"); }
Verb umount_verb() { return absent("umount", "unmounts what `mount` shows (on Linux)"); }
Verb nvme_verb() { return absent("nvme", "hands NVMe controllers over (on Linux)"); }

Verb daemon_verb() { return absent("daemon", "serves disks under QMP (on Linux)"); }
Verb ctl_verb() { return absent("ctl", "speaks to a daemon (on Linux)"); }

int serve_vhost_user(Session&, operation::VhostUserPlan, bool) {
  throw Error(ErrorKind::kUnsupported, "--vhost-user works on Linux only");
}

Background::Role Background::begin() {
  throw Error(ErrorKind::kUnsupported, "--fork works on Linux only");
}
int Background::wait() { return 1; }
void Background::ready(bool) {}

}  // namespace cairn::cli
