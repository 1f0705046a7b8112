#include "operation/resize.h"

#include "base/size.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/size_text.h"
#include "cli/verbs.h"

namespace cairn::cli {

namespace {

int run_resize(Session& session, Arguments& arguments) {
  operation::ResizeOptions wanted;
  wanted.shrink = arguments.has(kShrink);
  if (const auto mode = arguments.value(kPreallocation)) {
    try {
      wanted.preallocation = parse_preallocation(*mode);
    } catch (const Error&) {
      fail(session, "Invalid preallocation mode '" + *mode + "'");
    }
  }
  auto words = arguments.words();
  if (words.size() != 2)
    throw UsageError{words.size() > 2 ? "Extra argument(s) in command line"
                                      : "Expecting image file name and size"};
  if (add_objects(session, arguments)) return 0;
  check_format_flags(session, arguments);
  std::string size = words[1];
  if (size.starts_with('+') || size.starts_with('-')) {
    using From = operation::ResizeOptions::From;
    wanted.from = size[0] == '+' ? From::kLargerBy : From::kSmallerBy;
    size.erase(0, 1);
  }
  // The words about the size are those of an option.
  Options parsed;
  parsed.set("size", plain_size(session, size));
  wanted.bytes = parsed.size("size").value_or(0);
  OpenRequest request = image_request(session, arguments, words[0], arguments.value('f'));
  Progress progress(session, arguments.has('p'), arguments.has('q'), 1, Progress::Start::kWhenSlow);
  const operation::ResizeResult sizes =
      run(session, operation::resize(session.context, std::move(request), wanted));
  if (sizes.must_shrink) {
    session.error("Use the --shrink option to perform a shrink operation.");
    session.warning(
        "Shrinking an image will delete all data beyond the shrunken image's end. "
        "Before performing such an operation, make sure there is no important data there.");
    return 1;
  }
  progress.finish();
  if (session.json) {
    Value out = Value::object();
    out.set("filename", words[0]);
    out.set("old-size", sizes.before);
    out.set("virtual-size", sizes.after);
    print_report(session, out);
  }
  if (!arguments.has('q')) session.say("Image resized.\n");
  return 0;
}

}  // namespace

Verb resize_verb() {
  return {
      .name = "resize",
      .summary = "changes the size of a disk",
      .synopsis =
          "[--object DEF] [--image-opts] [-f FMT] [--preallocation=MODE] [-q] [--shrink] FILE "
          "[+|-]SIZE",
      .flags = {kFormatFlag,
                {kPreallocation, "preallocation", "off|metadata|falloc|full", "for what is added"},
                {kShrink, "shrink", nullptr, "allow the loss of data past the new end"},
                kQuietFlag,
                kImageOptsFlag,
                kObjectFlag},
      .own_flags = {kProgressFlag},
      .run = run_resize,
      .failure = 1,
      .usage_failure = 1,
      .size_last = true};
}

}  // namespace cairn::cli
