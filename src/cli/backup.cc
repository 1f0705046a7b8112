#include "operation/backup.h"

#include <fmt/core.h>

#include "base/size.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/signals.h"
#include "cli/verbs.h"
#include "operation/backup_pull.h"

namespace cairn::cli {
namespace {

// A daemon that is reached over the network is on another machine.
void plan_pull(const Arguments& arguments, operation::BackupOptions& plan) {
  operation::BackupOptions::Pull& pull = plan.pull;
  pull.nbd = arguments.value_or(kNbdAddress, "");
  pull.scratch = arguments.value_or(kScratch, "");
  pull.tls_creds = arguments.value_or(kTlsCreds, "");
  pull.wanted = arguments.has(kPull) || arguments.has(kNbdAddress) || arguments.has(kScratch) ||
                arguments.has(kTlsCreds) || operation::is_remote_daemon(plan.address);
  if (pull.wanted) operation::pull_address(plan.address, pull.nbd);
}

operation::BackupOptions plan_backup(Session& session, const Arguments& arguments) {
  operation::BackupOptions plan;
  const auto& words = arguments.words();
  plan.full = arguments.has(kFull);
  plan.compress = arguments.has('c');
  plan.bitmap = !arguments.has(kNoBitmap);
  if (arguments.has(kKeep)) throw UsageError{"--keep goes with --prune"};
  if (arguments.has(kDaemon) != arguments.has(kNode))
    throw UsageError{"--daemon and --node go together"};
  for (const int option : {kPull, kNbdAddress, kScratch, kTlsCreds})
    if (arguments.has(option) && !arguments.has(kDaemon))
      throw UsageError{"--pull, --nbd, --scratch and --tls-creds go with --daemon"};
  if (arguments.has(kDaemon)) {
    if (words.size() != 1)
      throw UsageError{"With --daemon, expecting the directory of the backups alone"};
    if (!plan.bitmap || arguments.has('f') || arguments.has(kImageOpts))
      throw UsageError{"-f, --image-opts and --no-bitmap are for images, not for --daemon"};
    plan.address = arguments.value_or(kDaemon, "");
    plan.node = arguments.value_or(kNode, "");
    plan_pull(arguments, plan);
  } else {
    if (words.size() != 2) throw UsageError{"Expecting an image and the directory of its backups"};
    check_format_flags(session, arguments);
    plan.image = image_request(session, arguments, words[0], arguments.value('f'));
  }
  plan.directory = words.back();
  return plan;
}

int run_backup(Session& session, Arguments& arguments) {
  if (arguments.has(kList)) return list_backups(session, arguments);
  if (arguments.has(kVerify)) return verify_backups(session, arguments);
  if (arguments.has(kPrune)) return prune_backups(session, arguments);
  operation::BackupOptions plan = plan_backup(session, arguments);
  if (add_objects(session, arguments)) return 0;
  const std::string directory = plan.directory;
  // The daemon is to end what it does for us.
  if (!plan.address.empty()) take_this_long_to_end(std::chrono::milliseconds(950));
  const bool quiet = arguments.has('q');
  Progress progress(session, arguments.has('p'), quiet, 1);
  operation::Caller caller = session.caller(progress);
  const operation::BackupResult done = operation::back_up(caller, std::move(plan));
  progress.finish();
  if (session.json) {
    Value out = Value::object();
    out.set("action", "backup");
    out.set("directory", directory);
    Value entry = done.entry.to_value(nullptr);
    entry.set("parent", done.parent ? Value(*done.parent) : Value());
    out.set("backup", std::move(entry));
    if (!done.reason.empty()) out.set("reason", done.reason);
    if (!done.scratch.empty()) out.set("scratch", done.scratch);
    print_report(session, out);
    return 0;
  }
  if (quiet) return 0;
  print(fmt::format(
      "Backup {}: {}, {}\n", done.entry.id,
      done.entry.full ? std::string("full") : fmt::format("incremental over {}", *done.parent),
      human_size(done.entry.bytes)));
  if (!done.reason.empty())
    print((done.entry.full ? "It is full: " : "Note: ") + done.reason + "\n");
  if (!done.scratch.empty())
    print("'" + done.scratch + "' stays on the daemon's machine, empty: the next backup uses it\n");
  return 0;
}

}  // namespace

Verb backup_verb() {
  return {
      .name = "backup",
      .summary = "adds a full or incremental backup of a disk to a directory",
      .synopsis =
          "[--full] [--no-bitmap] [-c] [-f FMT] IMAGE DIRECTORY | --daemon ADDRESS "
          "--node NODE [--pull] [--full] [-c] DIRECTORY | --list DIRECTORY | --verify DIRECTORY "
          "| --prune --keep NUMBER DIRECTORY",
      .flags = {{kDaemon, "daemon", "ADDRESS",
                 "QMP socket of a daemon or emulator that has the disk: a path, or HOST:PORT"},
                {kNode, "node", "NODE", "its node"},
                {kPull, "pull", nullptr,
                 "fetch the disk over NBD, where the daemon cannot write to the directory"},
                {kNbdAddress, "nbd", "ADDRESS", "where the daemon serves it: a path or HOST:PORT"},
                {kScratch, "scratch", "DIR",
                 "directory of the daemon's machine for data that is overwritten meanwhile"},
                {kTlsCreds, "tls-creds", "ID", "fetch with TLS, by this object"},
                {kFull, "full", nullptr, "make a full backup"},
                {kNoBitmap, "no-bitmap", nullptr,
                 "leave the image as it is; compare all of it with the last backup"},
                {'c', "compress", nullptr, "compress the backup"},
                {kList, "list", nullptr, "list the backups"},
                {kVerify, "verify", nullptr, "read all backups and compare their checksums"},
                {kPrune, "prune", nullptr, "remove old backups"},
                {kKeep, "keep", "NUMBER", "how many of the newest ones stay"},
                kFormatFlag,
                kImageOptsFlag,
                kObjectFlag,
                kOutputFlag,
                kLimitRateFlag,
                kProgressFlag,
                kQuietFlag},
      .run = run_backup,
      .own = true};
}

}  // namespace cairn::cli
