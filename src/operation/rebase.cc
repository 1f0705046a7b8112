#include "block/driver.h"
#include "block/parent_link.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/snapshot_guard.h"
#include "cli/verbs.h"
#include "job/difference.h"
#include "job/stored.h"

namespace cairn::cli {
namespace {

struct RebasePlan {
  OpenRequest overlay;
  std::string backing;
  std::string format;
  CacheMode cache;         // of the overlay
  CacheMode source_cache;  // of what lies below
  bool unsafe = false;
  bool compress = false;
  bool force_share = false;
  bool force = false;
};

class Rebasing {
 public:
  Rebasing(Session& session, RebasePlan plan, Progress& progress)
      : session_(session),
        plan_(std::move(plan)),
        name_(plan_.overlay.filename.empty() ? plan_.overlay.display : plan_.overlay.filename),
        progress_(progress) {}

  Task<void> run() {
    std::exception_ptr error;
    try {
      plan_.overlay.flags.writable = true;
      plan_.overlay.flags.no_backing = true;
      plan_.overlay.flags.cache = plan_.cache;
      overlay_ = co_await open_node(session_.context, std::move(plan_.overlay));
      if (plan_.compress && !overlay_->supports_compression())
        throw Error(ErrorKind::kUnsupported, "Compression not supported for this file format");
      // Known to fail in the end: better before the work than behind it.
      if (!plan_.backing.empty() && plan_.format.empty() && overlay_->driver().abilities().backing)
        throw Error(ErrorKind::kInvalid, "Could not change the backing file to '" + plan_.backing +
                                             "': backing format must be specified");
      check_snapshots_stay(session_, *overlay_, name_, plan_.force);
      if (!plan_.unsafe) co_await settle();
      co_await rename();
    } catch (...) {
      error = std::current_exception();
    }
    std::vector<NodePtr> nodes = {old_, new_, overlay_};
    co_await close_all(std::move(nodes), error);
  }

 private:
  Task<NodePtr> open_below(std::string name, std::string format) {
    OpenRequest request;
    request.filename = resolve_backing_name(*overlay_, name);
    request.format = format;
    request.bare_errors = true;
    request.flags.cache = plan_.source_cache;
    request.flags.force_share = plan_.force_share;
    if (session_.untrusted) request.flags.references.mode = ReferencePolicy::Mode::kDeny;
    request.flags.references.check(request.filename);
    NodePtr node = co_await open_node(session_.context, std::move(request));
    co_return node;
  }

  Task<void> settle() {
    const std::string stored = overlay_->backing_name();
    if (!stored.empty()) {
      try {
        old_ = co_await open_below(stored, overlay_->backing_format());
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
    co_await check_stored(overlay_.get(), false, session_.cancel);
    co_await check_stored(old_.get(), true, session_.cancel);
    co_await check_stored(new_.get(), true, session_.cancel);
    if (auto* child = dynamic_cast<ParentLink*>(overlay_.get()); child != nullptr)
      co_await child->adopt_parent(new_.get());
    // The guest sees the same disk at every moment: what is written is what it saw before.
    const DifferenceOptions options{.own_stays = true,
                                    .compress = plan_.compress,
                                    .zeroes_as_data = !session_.context.beyond_qemu,
                                    .wanted_name = "old backing file",
                                    .shown_name = "new backing file"};
    Difference job(overlay_, old_, new_, options, session_.cancel);
    job.progress = [this](uint64_t done, uint64_t total) { progress_.update(done, total); };
    co_await job.run();
  }

  Task<void> rename() {
    try {
      co_await overlay_->change_backing(plan_.backing, plan_.format);
    } catch (Error& error) {
      throw error.context("Could not change the backing file to '" + plan_.backing + "'");
    }
  }

  Session& session_;
  RebasePlan plan_;
  const std::string name_;  // of the overlay, as typed
  Progress& progress_;
  NodePtr overlay_;
  NodePtr old_;
  NodePtr new_;
};

}  // namespace

int run_rebase(Session& session, Arguments& arguments) {
  if (arguments.words().size() != 1) throw UsageError{"Expecting one image file name"};
  RebasePlan plan;
  plan.unsafe = arguments.has('u');
  if (!plan.unsafe && !arguments.has('b'))
    throw UsageError{"Must specify backing file (-b) or use unsafe mode (-u)"};
  plan.backing = arguments.value_or('b', "");
  plan.format = arguments.value_or('F', "");
  if (!plan.format.empty() && session.context.registry().find(plan.format) == nullptr)
    fail(session, "Invalid format name: '" + plan.format + "'");
  plan.compress = arguments.has('c');
  plan.force_share = arguments.has('U');
  plan.force = arguments.has(kForce);
  plan.cache = cache_mode(session, arguments.value_or('t', "writeback"), "Invalid cache option");
  plan.source_cache =
      cache_mode(session, arguments.value_or('T', "writeback"), "Invalid source cache option");
  if (add_objects(session, arguments)) return 0;
  check_format_flags(session, arguments);
  plan.overlay = image_request(session, arguments, arguments.words()[0], arguments.value('f'));
  // -U is about the new backing file: the overlay is written.
  plan.overlay.flags.force_share = false;
  Progress progress(session, arguments.has('p'), arguments.has('q'), 2);
  Value out = Value::object();
  out.set("filename", arguments.words()[0]);
  out.set("backing-filename", plan.backing);
  if (!plan.format.empty()) out.set("backing-filename-format", plan.format);
  out.set("content-kept", !plan.unsafe);
  Rebasing work(session, std::move(plan), progress);
  run(session, work.run());
  progress.finish();
  if (session.json) print_report(session, out);
  return 0;
}

}  // namespace cairn::cli
