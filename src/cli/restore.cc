#include <fmt/core.h>

#include "cli/convert_plan.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/verbs.h"
#include "operation/backup.h"

namespace cairn::cli {
namespace {

// The exit code when --verify finds a difference.
constexpr int kRestoreDiffers = 2;

int run_restore(Session& session, Arguments& arguments) {
  bool help = false;
  auto given = option_lists(session, arguments, &help);
  const auto& words = arguments.words();
  if (help)
    return print_create_help(session, arguments.value_or('O', "raw"),
                             words.empty() ? std::string() : words.back());
  if (words.size() != 2) throw UsageError{"Expecting the directory of the backups and a target"};
  operation::RestoreOptions plan;
  plan.directory = words[0];
  plan.at = arguments.value_or(kAt, "");
  plan.check = !arguments.has(kNoChecksum);
  ConvertPlan& target = plan.target;
  target.target = words[1];
  target.overwrite = arguments.has(kOverwrite);
  target.verify = arguments.has(kVerify);
  target.quiet = arguments.has('q');
  target.job.compress = arguments.has('c');
  target.target_cache = *CacheMode::parse("unsafe");
  target.format = arguments.value_or('O', "");
  if (target.format.empty()) target.format = format_for_target(session, target.target);
  if (add_objects(session, arguments)) return 0;
  plan_creation(session, arguments, given.value_or(Options{}), 1, target);
  plan_pipes(session, arguments, target);
  const std::string format = target.format;
  Progress progress(session, arguments.has('p'), target.quiet, 1);
  operation::Caller caller = session.caller(progress);
  operation::BackupEntry entry;
  try {
    entry = operation::restore_backup(caller, std::move(plan));
  } catch (const operation::TargetDiffers& found) {
    progress.finish();
    session.error(
        fmt::format("'{}' differs from the backup at byte {}, although writing reported "
                    "no error",
                    words[1], found.offset));
    return kRestoreDiffers;
  }
  progress.finish();
  if (session.json) {
    Value out = Value::object();
    out.set("directory", words[0]);
    out.set("target", words[1]);
    out.set("format", format);
    out.set("id", entry.id);
    out.set("time", entry.time);
    out.set("virtual-size", entry.size);
    out.set("verified", arguments.has(kVerify));
    print_report(session, out);
    return 0;
  }
  if (!arguments.has('q'))
    print(fmt::format("'{}' is the disk of backup {} ({})\n", words[1], entry.id, entry.time));
  return 0;
}

}  // namespace

Verb restore_verb() {
  return {.name = "restore",
          .summary = "makes an image of a disk as it was at a backup",
          .synopsis =
              "[--at WHEN] [--verify] [--no-checksum] [-O FMT] [-o OPTS] [-c] "
              "[--overwrite] DIRECTORY {TARGET|-}",
          .flags = {{kAt, "at", "WHEN",
                     "the number of a backup, or a time (2026-11-30T09:18:09Z, or its beginning): "
                     "the last one until then; else the newest one"},
                    {'O', "target-format", "FMT", "format of the target"},
                    {'o', "target-options", "OPTS",
                     "options for creating the target; `help` lists them"},
                    {'c', "compress", nullptr, "compress the target"},
                    {kVerify, "verify", nullptr, "read the target back and compare it"},
                    {kNoChecksum, "no-checksum", nullptr, "do not check the files first"},
                    kOverwriteFlag,
                    kObjectFlag,
                    kOutputFlag,
                    kLimitRateFlag,
                    kLimitRateFlag,
                    kProgressFlag,
                    kQuietFlag},
          .run = run_restore,
          .own = true};
}

}  // namespace cairn::cli
