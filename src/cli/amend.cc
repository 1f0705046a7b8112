#include "operation/amend.h"

#include "block/driver.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/verbs.h"

namespace cairn::cli {

namespace {

int run_amend(Session& session, Arguments& arguments) {
  bool help = false;
  const auto given = option_lists(session, arguments, &help);
  if (!given) throw UsageError{"Must specify options (-o)"};
  if (add_objects(session, arguments)) return 0;
  const auto& words = arguments.words();
  const std::string format = arguments.value_or('f', "");
  if (help && !format.empty()) return print_amend_help(session, format);
  if (words.size() != 1) fail(session, "Expecting one image file name");
  check_format_flags(session, arguments);
  OpenRequest request = image_request(session, arguments, words[0], arguments.value('f'));
  request.flags.cache =
      cache_mode(session, arguments.value_or('t', "writeback"), "Invalid cache option");
  if (help) {
    const std::string found =
        run(session, operation::format_of_image(session.context, std::move(request)));
    return print_amend_help(session, found);
  }
  Progress progress(session, arguments.has('p'), arguments.has('q'), 1,
                    Progress::Start::kWithFirstUpdate);
  const operation::Caller caller = session.caller(progress);
  AmendRequest changes{
      .options = *given, .force = arguments.has(kForce), .progress = caller.progress};
  const std::string found =
      run(session, operation::amend(caller, std::move(request), std::move(changes)));
  progress.finish();
  if (session.json) {
    Value out = Value::object();
    out.set("filename", words[0]);
    out.set("format", found);
    out.set("options", object_of(*given));
    print_report(session, out);
  }
  return 0;
}

}  // namespace

Verb amend_verb() {
  return {
      .name = "amend",
      .summary = "changes format options of an existing image",
      .synopsis =
          "[--object DEF] [--image-opts] [-p] [-q] [-f FMT] [-t CACHE] [--force] -o OPTS FILE",
      .flags = {kFormatFlag,
                {'o', "options", "OPTS", "options to change; `help` lists them"},
                {'t', "cache", "MODE", "cache mode of the image"},
                {kForce, "force", nullptr, "do what could lose data, such as erasing the last key"},
                kProgressFlag,
                kQuietFlag,
                kImageOptsFlag,
                kObjectFlag},
      .run = run_amend};
}

}  // namespace cairn::cli
