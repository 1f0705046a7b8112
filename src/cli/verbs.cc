#include "cli/verbs.h"

#include "cli/nbd/nbd.h"

namespace cairn::cli {
namespace {

// Every verb, by name. A new one is a file with a function, and a row here.
constexpr Verb (*kVerbs[])() = {
    amend_verb,   backup_verb,  bench_verb,    bitmap_verb, check_verb, commit_verb,  compact_verb,
    compare_verb, convert_verb, create_verb,   ctl_verb,    dd_verb,    formats_verb, hash_verb,
    info_verb,    map_verb,     measure_verb,  mount_verb,  nvme_verb,  rebase_verb,  resize_verb,
    restore_verb, serve_verb,   snapshot_verb, umount_verb,
};

}  // namespace

const std::vector<Verb>& verbs() {
  static const std::vector<Verb> table = [] {
    std::vector<Verb> all;
    for (const auto make : kVerbs) all.push_back(make());
    return all;
  }();
  return table;
}

}  // namespace cairn::cli
