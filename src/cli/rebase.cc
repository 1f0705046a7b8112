#include "operation/rebase.h"

#include "block/driver.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/verbs.h"

namespace cairn::cli {

namespace {

int run_rebase(Session& session, Arguments& arguments) {
  if (arguments.words().size() != 1) throw UsageError{"Expecting one image file name"};
  operation::RebaseOptions plan;
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
  operation::Caller caller = session.caller(progress);
  run(session, operation::rebase(caller, std::move(plan)));
  progress.finish();
  if (session.json) print_report(session, out);
  return 0;
}

}  // namespace

Verb rebase_verb() {
  return {
      .name = "rebase",
      .summary = "changes the backing file of an overlay",
      .synopsis =
          "[--object DEF] [--image-opts] [-U] [-q] [-f FMT] [-t CACHE] [-T CACHE] [-p] [-u] [-c] "
          "-b BACKING [-F BFMT] FILE",
      .flags = {kFormatFlag,
                {'b', "backing", "FILE", "the new backing file; an empty name: none"},
                {'F', "backing-format", "FMT", "its format"},
                {'u', "backing-unsafe", nullptr, "change the name only, without copying data"},
                {'c', "compress", nullptr, "compress what is copied"},
                {'t', "cache", "MODE", "cache mode of FILE"},
                {'T', "source-cache", "MODE", "cache mode of the backing files"},
                kProgressFlag,
                kQuietFlag,
                kForceShareFlag,
                kImageOptsFlag,
                kObjectFlag},
      .own_flags = {kLimitRateFlag,
                    {kForce, "force", nullptr,
                     "go on although internal snapshots of the image will show other content"}},
      .run = run_rebase};
}

}  // namespace cairn::cli
