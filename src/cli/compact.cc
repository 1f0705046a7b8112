#include "operation/compact.h"

#include "base/size.h"
#include "block/driver.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/verbs.h"

namespace cairn::cli {

namespace {

int run_compact(Session& session, Arguments& arguments) {
  operation::CompactOptions plan;
  bool help = false;
  const auto given = option_lists(session, arguments, &help);
  if (help) return print_create_help(session, "qcow2", "");
  const auto& words = arguments.words();
  if (words.empty() || words.size() > 2)
    throw UsageError{"Expecting the name of an image, and of a new file or none"};
  if (add_objects(session, arguments)) return 0;
  plan.name = words[0];
  if (words.size() == 2) plan.target = words[1];
  if (has_protocol_prefix(plan.name) || has_protocol_prefix(plan.target))
    fail(session, "compact works on files: give plain names");
  if (!plan.target.empty() && same_file(plan.name, plan.target))
    fail(session, "Both names are one file: leave the second one out to compact it in place");
  plan.given = given.value_or(Options{});
  operation::check_compact_options(plan.given);
  plan.overwrite = arguments.has(kOverwrite);
  if (plan.overwrite && plan.target.empty())
    fail(session, "--overwrite is for a NEW-FILE; without one the image is replaced anyway");
  plan.compress = arguments.has('c');
  const Driver* qcow2 = session.context.registry().find("qcow2");
  if (qcow2 != nullptr) plan.level = take_compression_level(session, *qcow2, plan.given);
  plan.source = image_request(session, arguments, plan.name, arguments.value('f'));
  const bool quiet = arguments.has('q');
  Progress progress(session, arguments.has('p'), quiet, 1);
  operation::Caller caller = session.caller(progress);
  const auto done = run(session, operation::compact(caller, std::move(plan)));
  progress.finish();
  if (session.json) {
    Value out = Value::object();
    out.set("filename", words[0]);
    out.set("target", words.back());
    out.set("size-before", done.before);
    out.set("size-after", done.after);
    out.set("kept", done.kept);
    print_report(session, out);
    return 0;
  }
  if (done.kept) {
    if (!quiet)
      print(words[0] + ": " + human_size(done.before) + ", and would take " +
            human_size(done.after) + " when rewritten: the old file was kept\n");
    return 0;
  }
  if (!quiet)
    print(words[0] + ": " + human_size(done.before) + " before, " + human_size(done.after) +
          " now\n");
  return 0;
}

}  // namespace

Verb compact_verb() {
  return {
      .name = "compact",
      .summary = "rewrites a qcow2 image: smaller, and in the order of the disk",
      .synopsis = "[--object DEF] [-c] [-f FMT] [-o OPTS] [--overwrite] [-p] [-q] FILE [NEW-FILE]",
      .flags = {{'c', "compress", nullptr, "compress data that is not compressed yet"},
                kFormatFlag,
                kObjectFlag,
                {'o', "options", "OPTS", "options to change: cluster_size, compression_type, …"},
                kOverwriteFlag,
                kLimitRateFlag,
                kProgressFlag,
                kQuietFlag},
      .run = run_compact,
      .own = true};
}

}  // namespace cairn::cli
