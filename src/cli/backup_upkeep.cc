// `backup --list`, `--verify` and `--prune`: what is done with backups that are there.
#include <fmt/core.h>

#include <algorithm>

#include "base/size.h"
#include "cli/escape.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/verbs.h"
#include "operation/backup.h"

namespace cairn::cli {
namespace {

// The exit code when --verify finds something.
constexpr int kBackupsDamaged = 2;

// One of the actions besides making a backup: its flag with those that go with it, and no other.
void refuse_flags(const Arguments& arguments, std::string_view action,
                  std::initializer_list<int> allowed) {
  constexpr std::pair<int, std::string_view> kOwnFlags[] = {
      {kList, "--list"}, {kVerify, "--verify"}, {kPrune, "--prune"},
      {kKeep, "--keep"}, {kFull, "--full"},     {kDaemon, "--daemon"},
      {kNode, "--node"}, {'c', "-c"},           {kNoBitmap, "--no-bitmap"}};
  for (const auto& [id, name] : kOwnFlags)
    if (arguments.has(id) && std::find(allowed.begin(), allowed.end(), id) == allowed.end())
      throw UsageError{std::string(name) + " does not go with " + std::string(action)};
}

std::string backups_of(size_t count) {
  return fmt::format("{} backup{}", count, count == 1 ? "" : "s");
}

const std::string& only_directory(const Arguments& arguments) {
  if (arguments.words().size() != 1) throw UsageError{"Expecting the directory of the backups"};
  return arguments.words()[0];
}

}  // namespace

int list_backups(Session& session, Arguments& arguments) {
  refuse_flags(arguments, "--list", {kList});
  const std::string& directory = only_directory(arguments);
  const operation::BackupManifest manifest = operation::read_backups(directory);
  if (session.json) {
    Value list = Value::array();
    const operation::BackupEntry* before = nullptr;
    for (const operation::BackupEntry& entry : manifest.backups) {
      list.push_back(entry.to_value(entry.full ? nullptr : before));
      before = &entry;
    }
    Value out = Value::object();
    out.set("action", "list");
    out.set("directory", directory);
    out.set("backups", std::move(list));
    print_report(session, out);
    return 0;
  }
  if (manifest.backups.empty()) return 0;
  print("ID      TIME                  KIND         DISK        FILE        SOURCE\n");
  for (const operation::BackupEntry& entry : manifest.backups)
    print(fmt::format("{:<7} {:<21} {:<12} {:<11} {:<11} ", entry.id, entry.time,
                      entry.full ? "full" : "incremental", human_size(entry.size),
                      human_size(entry.bytes)) +
          shown(entry.source) + "\n");
  return 0;
}

int verify_backups(Session& session, Arguments& arguments) {
  refuse_flags(arguments, "--verify", {kVerify});
  const std::string& directory = only_directory(arguments);
  Progress progress(session, arguments.has('p'), arguments.has('q'), 1);
  operation::Caller caller = session.caller(progress);
  const operation::BackupCheck check = operation::verify_backups(caller, directory);
  progress.finish();
  if (session.json) {
    Value out = Value::object();
    out.set("action", "verify");
    out.set("directory", directory);
    out.set("count", uint64_t{check.backups});
    out.set("file-bytes", check.bytes);
    out.set("problems", array_of(check.problems));
    print_report(session, out);
  } else {
    for (const std::string& problem : check.problems) session.error(shown(problem));
    if (check.problems.empty() && !arguments.has('q'))
      print(fmt::format("{}: {}, {}: all are as they were written\n", directory,
                        backups_of(check.backups), human_size(check.bytes)));
  }
  return check.problems.empty() ? 0 : kBackupsDamaged;
}

int prune_backups(Session& session, Arguments& arguments) {
  refuse_flags(arguments, "--prune", {kPrune, kKeep});
  const std::string& directory = only_directory(arguments);
  if (!arguments.has(kKeep)) throw UsageError{"--prune needs --keep NUMBER"};
  const std::string text = arguments.value_or(kKeep, "");
  const bool number = !text.empty() && text.size() < 10 &&
                      text.find_first_not_of("0123456789") == std::string::npos;
  if (!number || std::stoul(text) == 0)
    fail(session, "--keep takes the number of backups that stay, at least 1");
  Progress progress(session, arguments.has('p'), arguments.has('q'), 1);
  operation::Caller caller = session.caller(progress);
  const operation::PruneResult done = operation::prune_backups(caller, directory, std::stoul(text));
  progress.finish();
  if (session.json) {
    Value removed = Value::array();
    for (const uint64_t id : done.removed) removed.push_back(id);
    Value out = Value::object();
    out.set("action", "prune");
    out.set("directory", directory);
    out.set("removed", std::move(removed));
    out.set("merged", done.merged ? Value(*done.merged) : Value());
    print_report(session, out);
    return 0;
  }
  if (arguments.has('q')) return 0;
  print(backups_of(done.removed.size()) + " removed\n");
  if (done.merged) print(fmt::format("Backup {} is a full one now\n", *done.merged));
  return 0;
}

}  // namespace cairn::cli
