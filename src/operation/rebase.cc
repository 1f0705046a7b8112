#include "operation/rebase.h"

#include "async/finally.h"
#include "block/capabilities/backing_link.h"
#include "block/capabilities/compressed_writer.h"
#include "block/capabilities/parent_link.h"
#include "block/driver.h"
#include "job/difference.h"
#include "job/stored.h"
#include "operation/snapshot_guard.h"

namespace cairn::operation {
namespace {

class Rebasing {
 public:
  Rebasing(Caller& caller, RebaseOptions plan)
      : caller_(caller), plan_(std::move(plan)), name_(shown_name(plan_.overlay)) {}

  Task<void> run() {
    co_await finally(
        [&]() -> Task<void> {
          plan_.overlay.flags.writable = true;
          plan_.overlay.flags.no_backing = true;
          plan_.overlay.flags.cache = plan_.cache;
          overlay_ = co_await open_node(caller_.context, std::move(plan_.overlay));
          if (plan_.compress && !supports_compression(*overlay_))
            throw Error(ErrorKind::kUnsupported, "Compression not supported for this file format");
          // Known to fail in the end: better before the work than after it.
          if (!plan_.backing.empty() && plan_.format.empty() &&
              overlay_->driver().offers<BackingLink>())
            throw Error(ErrorKind::kInvalid, "Could not change the backing file to '" +
                                                 plan_.backing +
                                                 "': backing format must be specified");
          check_snapshots_stay(caller_, *overlay_, name_, plan_.force);
          if (!plan_.unsafe) co_await settle();
          co_await rename();
        },
        [&] {
          return close_all({old_, new_, overlay_});
        });
  }

 private:
  Task<NodePtr> open_below(std::string name, std::string format) {
    OpenRequest request;
    request.filename = resolve_backing_name(*overlay_, name);
    request.format = format;
    request.bare_errors = true;
    request.flags.cache = plan_.source_cache;
    request.flags.force_share = plan_.force_share;
    if (caller_.untrusted) request.flags.references.mode = ReferencePolicy::Mode::kDeny;
    request.flags.references.check(request.filename);
    NodePtr node = co_await open_node(caller_.context, std::move(request));
    co_return node;
  }

  Task<void> settle() {
    const std::string stored = backing_name_of(*overlay_);
    if (!stored.empty()) {
      try {
        old_ = co_await open_below(stored, backing_format_of(*overlay_));
      } catch (Error& error) {
        throw error.context("Could not open '" + name_ + "': Could not open backing file");
      }
    }
    if (!plan_.backing.empty()) {
      try {
        new_ = co_await open_below(plan_.backing, plan_.format);
      } catch (Error& error) {
        throw error.context("Could not open new backing file '" + plan_.backing + "'");
      }
    }
    std::vector<StoredPart> parts;
    parts.push_back({.node = overlay_.get()});
    parts.push_back({.node = old_.get(), .whole_chain = true});
    parts.push_back({.node = new_.get(), .whole_chain = true});
    co_await check_stored(std::move(parts), caller_.cancel);
    if (auto* child = overlay_->as<ParentLink>()) co_await child->adopt_parent(new_.get());
    // The guest sees the same disk at every moment: what is written is what it saw before.
    const DifferenceOptions options{.own_stays = true,
                                    .compress = plan_.compress,
                                    .zeroes_as_data = caller_.context.profile.zeroes_as_data,
                                    .wanted_name = "old backing file",
                                    .shown_name = "new backing file"};
    Difference job(overlay_, old_, new_, options, caller_.cancel);
    job.progress = [this](uint64_t done, uint64_t total) { caller_.progress(done, total); };
    co_await job.run();
  }

  Task<void> rename() {
    try {
      co_await change_backing(*overlay_, plan_.backing, plan_.format);
    } catch (Error& error) {
      throw error.context("Could not change the backing file to '" + plan_.backing + "'");
    }
  }

  Caller& caller_;
  RebaseOptions plan_;
  const std::string name_;  // of the overlay, as typed
  NodePtr overlay_;
  NodePtr old_;
  NodePtr new_;
};

}  // namespace

Task<void> rebase(Caller& caller, RebaseOptions options) {
  Rebasing work(caller, std::move(options));
  co_await work.run();
}

}  // namespace cairn::operation
