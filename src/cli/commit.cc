#include "operation/commit.h"

#include "cli/progress.h"
#include "cli/report.h"
#include "cli/verbs.h"

namespace cairn::cli {

namespace {

int run_commit(Session& session, Arguments& arguments) {
  if (arguments.words().size() != 1) throw UsageError{"Expecting one image file name"};
  operation::CommitOptions plan;
  plan.cache = cache_mode(session, arguments.value_or('t', "writeback"), "Invalid cache option");
  if (const auto text = arguments.value('r'))
    plan.rate = size_argument(session, *text, "rate limit");
  plan.base = arguments.value('b');
  plan.empty_top = !arguments.has('d') && !plan.base;
  plan.force = arguments.has(kForce);
  if (add_objects(session, arguments)) return 0;
  check_format_flags(session, arguments);
  plan.name = arguments.words()[0];
  plan.top = image_request(session, arguments, plan.name, arguments.value('f'));
  Value out = Value::object();
  out.set("filename", plan.name);
  out.set("emptied", plan.empty_top);
  Progress progress(session, arguments.has('p'), arguments.has('q'), 1);
  operation::Caller caller = session.caller(progress);
  const std::string base = run(session, operation::commit(caller, std::move(plan)));
  progress.finish();
  if (session.json) {
    out.set("base", base);
    print_report(session, out);
  }
  if (!arguments.has('q')) session.say("Image committed.\n");
  return 0;
}

}  // namespace

Verb commit_verb() {
  return {.name = "commit",
          .summary = "writes the data of an overlay into its backing file",
          .synopsis =
              "[--object DEF] [--image-opts] [-q] [-f FMT] [-t CACHE] [-b BASE] [-r RATE] [-d] "
              "[-p] FILE",
          .flags = {kFormatFlag,
                    {'t', "cache", "MODE", "cache mode of the images"},
                    {'b', "base", "BASE", "commit down to this image; implies -d"},
                    {'d', "drop", nullptr, "do not empty FILE afterwards"},
                    {'r', "rate", "BYTES", "write at most so many bytes a second"},
                    kProgressFlag,
                    kQuietFlag,
                    kImageOptsFlag,
                    kObjectFlag},
          .own_flags = {kLimitRateFlag,
                        {kForce, "force", nullptr,
                         "go on although internal snapshots of the image will show other content"}},
          .run = run_commit};
}

}  // namespace cairn::cli
