#include "operation/backup_part.h"

#include "async/finally.h"
#include "block/capabilities/backing_link.h"
#include "block/driver.h"
#include "job/convert.h"
#include "job/difference.h"

namespace cairn::operation {
namespace {

Task<void> copy_all(Caller& caller, NodePtr source, NodePtr target, bool compress) {
  ConvertOptions options;
  options.compress = compress;
  options.zero_target = true;
  Convert job(caller.context, {source}, target, options, caller.cancel);
  job.progress = [&caller](uint64_t done, uint64_t total) { caller.progress(done, total); };
  co_await job.run();
}

Task<void> copy_changes(Caller& caller, const PartContent& content, NodePtr target, NodePtr below) {
  DifferenceOptions options;
  options.compress = content.compress;
  options.shown_name = "the backup before";
  options.changed = content.changed;
  Difference job(target, content.source, below, options, caller.cancel);
  job.progress = [&caller](uint64_t done, uint64_t total) { caller.progress(done, total); };
  co_await job.run();
}

}  // namespace

Task<void> fill_part(Caller& caller, const BackupStore& store, std::string part,
                     PartContent content) {
  NodePtr target;
  co_await finally(
      [&]() -> Task<void> {
        OpenRequest opening;
        opening.filename = part;
        opening.format = "qcow2";
        opening.flags.writable = true;
        opening.flags.references.mode = ReferencePolicy::Mode::kDeny;
        opening.flags.cache = *CacheMode::parse("unsafe");
        opening.flags.no_backing = content.full;
        NodePtr below;
        if (!content.full)
          below = co_await store.open_chain(caller, store.manifest().backups.size() - 1);
        opening.backing = below;
        target = co_await open_over_backing(caller.context, std::move(opening));
        if (content.full)
          co_await copy_all(caller, content.source, target, content.compress);
        else
          co_await copy_changes(caller, content, target, below);
      },
      [&] { return close_all({target}); });
}

}  // namespace cairn::operation
