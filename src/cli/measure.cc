#include "operation/measure.h"

#include <fmt/core.h>

#include "block/driver.h"
#include "cli/help.h"
#include "cli/progress.h"
#include "cli/verbs.h"
#include "qemu/json_order.h"

namespace cairn::cli {

namespace {

int run_measure(Session& session, Arguments& arguments) {
  const bool json = json_output(session, arguments);
  const std::string format = arguments.value_or('O', "raw");
  bool help = false;
  const auto given = option_lists(session, arguments, &help);
  if (help) return print_create_help(session, format, "");
  if (add_objects(session, arguments)) return 0;
  const auto& words = arguments.words();
  if (words.size() > 1) fail(session, "At most one filename argument is allowed.");
  const auto size = arguments.value(kSize);
  if (words.empty() && (arguments.has(kImageOpts) || arguments.has('f') || arguments.has('l')))
    fail(session, "--image-opts, -f, and -l require a filename argument.");
  if (words.empty() && !size) fail(session, "Either --size N or one filename must be specified.");
  if (!words.empty() && size) fail(session, "--size N cannot be used together with a filename.");
  check_format_flags(session, arguments);
  const Driver* driver = session.context.registry().find(format);
  if (driver == nullptr) fail(session, unknown_format(session, format));
  const Options options = given.value_or(Options{});
  MeasureResult result;
  try {
    operation::check_measure_options(session.context.registry(), *driver, options);
  } catch (const Error& error) {
    session.error(error);
    fail(session, "Invalid options for file format '" + format + "'");
  }
  if (size) {
    const uint64_t bytes = size_argument(session, *size, "image size");
    result = run(session, operation::measure(session.context, *driver, options, bytes));
  } else {
    OpenRequest request = image_request(session, arguments, words[0], arguments.value('f'));
    Progress progress(session, arguments.has('p'), false, 1, Progress::Start::kWhenSlow);
    result = run(session, operation::measure(session.context, *driver, options, std::move(request),
                                             arguments.value_or('l', "")));
  }
  if (json) {
    Value out = Value::object();
    if (result.bitmaps) out.set("bitmaps", *result.bitmaps);
    out.set("required", result.required);
    out.set("fully-allocated", result.fully_allocated);
    print(out.pretty(qemu::json_order) + "\n");
    return 0;
  }
  print(fmt::format("required size: {}\n", result.required));
  print(fmt::format("fully allocated size: {}\n", result.fully_allocated));
  if (result.bitmaps) print(fmt::format("bitmaps size: {}\n", *result.bitmaps));
  return 0;
}

}  // namespace

Verb measure_verb() {
  return {.name = "measure",
          .summary = "calculates the size of an image before it is created",
          .synopsis =
              "[--output=FMT] [-O FMT] [-o OPTS] (--size N | [--object DEF] [--image-opts] [-f "
              "FMT] [-l "
              "SNAP] "
              "[-U] FILE)",
          .flags = {{'O', "target-format", "FMT", "format of the image to be (raw)"},
                    {'o', "target-options", "OPTS", "options for creating it"},
                    {kSize, "size", "BYTES", "size of the disk, instead of FILE"},
                    {'l', "snapshot", "SNAP", "measure this internal snapshot"},
                    kFormatFlag,
                    kOutputFlag,
                    kForceShareFlag,
                    kImageOptsFlag,
                    kObjectFlag},
          .own_flags = {kDiskFlag, kProgressFlag},
          .run = run_measure};
}

}  // namespace cairn::cli
