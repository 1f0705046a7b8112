#include "operation/dd.h"

#include <optional>

#include "block/driver.h"
#include "cli/help.h"
#include "cli/pipes.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/verbs.h"

namespace cairn::cli {

namespace {

int run_dd(Session& session, Arguments& arguments) {
  operation::DdOptions plan;
  std::optional<std::string> in;
  std::optional<std::string> out;
  for (const std::string& word : arguments.words()) {
    const size_t equals = word.find('=');
    const std::string key = word.substr(0, equals);
    const std::string value = equals == std::string::npos ? std::string() : word.substr(equals + 1);
    if (equals == std::string::npos)
      fail(session, "unrecognized operand " + word);
    else if (key == "if")
      in = value;
    else if (key == "of")
      out = value;
    else if (key == "bs")
      plan.block = size_argument(session, value, "bs", 1, INT32_MAX);
    else if (key == "count")
      plan.count = size_argument(session, value, "count");
    else if (key == "skip")
      plan.skip = size_argument(session, value, "skip");
    else
      fail(session, "unrecognized operand " + key);
  }
  if (!in || !out) fail(session, "Must specify both input and output files");
  check_format_flags(session, arguments);
  if (const auto format = arguments.value('O')) plan.format = *format;
  if (add_objects(session, arguments)) return 0;
  const Driver* driver = session.context.registry().find(plan.format);
  if (driver == nullptr)
    fail(session,
         session.manners.explains ? unknown_format(session, plan.format) : "Unknown file format");
  if (!driver->abilities().create)
    fail(session, "Format driver '" + plan.format + "' does not support image creation");
  plan.in = *in;
  plan.out = *out;
  plan.source = image_request(session, arguments, *in, arguments.value('f'));
  plan.overwrite = arguments.has(kOverwrite);
  plan.take_output = [&] { return take_standard_output("raw"); };
  Value report = Value::object();
  report.set("input", plan.in);
  report.set("output", plan.out);
  report.set("format", plan.format);
  Progress progress(session, arguments.has('p'), false, 1, Progress::Start::kWhenSlow);
  operation::Caller caller = session.caller(progress);
  const uint64_t bytes = operation::dd(caller, std::move(plan));
  progress.finish();
  if (session.json) {
    report.set("bytes", bytes);
    print_report(session, report);
  }
  return 0;
}

}  // namespace

Verb dd_verb() {
  return {
      .name = "dd",
      .summary = "copies blocks of an image",
      .synopsis = "[--image-opts] [-U] [-f FMT] [-O FMT] [bs=N] [count=N] [skip=N] if=IN of=OUT",
      .flags = {{'f', "format", "FMT", "format of the input"},
                {'O', "output-format", "FMT", "format of the output (raw)"},
                kForceShareFlag,
                kImageOptsFlag,
                kObjectFlag},
      .own_flags = {kOverwriteFlag, kProgressFlag, kLimitRateFlag},
      .run = run_dd};
}

}  // namespace cairn::cli
