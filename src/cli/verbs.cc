#include "cli/verbs.h"

#include <algorithm>

#include "cli/cache_dir.h"
#include "cli/key_budget.h"
#include "cli/key_file.h"
#include "cli/nbd/nbd.h"
#include "cli/sandbox.h"

namespace cairn::cli {
namespace {

// Every verb, by name. A new one is a file with a function, and a row here.
constexpr Verb (*kVerbs[])() = {
    amend_verb,  backup_verb,  bench_verb,   bitmap_verb,     check_verb,
    commit_verb, compact_verb, compare_verb, completion_verb, convert_verb,
    create_verb, dd_verb,      formats_verb, hash_verb,       info_verb,
    map_verb,    measure_verb, mount_verb,   nvme_verb,       rebase_verb,
    resize_verb, restore_verb, serve_verb,   snapshot_verb,   umount_verb,
};

std::vector<Verb>& all_verbs() {
  static std::vector<Verb> all = [] {
    std::vector<Verb> made;
    for (const auto make : kVerbs) made.push_back(make());
    return made;
  }();
  return all;
}

}  // namespace

const std::vector<Verb>& verbs() { return all_verbs(); }

void add(const Verb& verb) {
  const auto after = std::find_if(all_verbs().begin(), all_verbs().end(),
                                  [&](const Verb& other) { return other.name > verb.name; });
  all_verbs().insert(after, verb);
}

bool knows(const std::vector<Flag>& flags, int id) {
  return std::any_of(flags.begin(), flags.end(), [id](const Flag& flag) { return flag.id == id; });
}

std::vector<Flag> flags_of(const Verb& verb, bool own_words) {
  std::vector<Flag> flags = verb.flags;
  flags.push_back({'h', "help", nullptr, "print this help"});
  if (!own_words) return flags;
  for (const Flag& flag : verb.own_flags) flags.push_back(flag);
  if (knows(flags, kObject)) flags.push_back(kKeyFileFlag);
  if (knows(flags, kObject)) flags.insert(flags.end(), cache_flags().begin(), cache_flags().end());
  flags.push_back(can_be_sandboxed(verb.name) ? kSandboxFlag : kUntrustedFlag);
  if (!knows(flags, kOutput)) flags.push_back(kOutputFlag);
  if (knows(flags, kObject)) flags.push_back(kKeyBudgetFlag);
  if (can_be_sandboxed(verb.name)) flags.push_back(kBudgetFlag);
  return flags;
}

std::vector<Flag> flags_of(const Tool& tool) {
  std::vector<Flag> flags = tool.flags();
  flags.push_back({'h', "help", nullptr, "print this help"});
  flags.push_back({'V', "version", nullptr, "print the version"});
  flags.push_back(kKeyFileFlag);
  flags.insert(flags.end(), cache_flags().begin(), cache_flags().end());
  return flags;
}

}  // namespace cairn::cli
