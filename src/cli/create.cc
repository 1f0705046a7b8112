#include "operation/create.h"

#include "block/driver.h"
#include "cli/key_file.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

void report(Session& session, const CreateOptions& made) {
  OpenRequest request;
  request.filename = made.filename;
  request.format = made.format;
  Value out = Value::object();
  out.set("filename", made.filename);
  out.set("format", made.format);
  out.set("virtual-size",
          run(session, operation::size_of_disk(session.context, std::move(request))));
  out.set("options", object_of(made.options));
  print_report(session, out);
}

int run_create(Session& session, Arguments& arguments) {
  bool help = false;
  if (add_objects(session, arguments)) return 0;
  const auto given = option_lists(session, arguments, &help);
  const auto& words = arguments.words();
  CreateOptions request;
  request.format = arguments.value_or('f', "");
  if (!arguments.has('f'))
    request.format = words.empty() ? "raw" : format_for_target(session, words.front());
  if (help)
    return print_create_help(session, request.format, words.empty() ? std::string() : words[0]);
  if (words.empty()) throw UsageError{"Expecting image file name"};
  if (request.format.empty()) fail(session, words[0] + ": Unknown file format ''");
  if (words.size() > 2) throw UsageError{"Unexpected argument: " + words[2]};
  request.filename = words[0];
  if (words.size() == 2) request.size = size_argument(session, words[1], "image size");
  request.backing_unchecked = arguments.has('u');
  if (!arguments.has('q')) {
    request.announce = [&](std::string_view line) { session.say(std::string(line) + "\n"); };
  }
  try {
    if (given) request.options = *given;
    const Driver* driver = session.context.registry().find(request.format);
    if (driver != nullptr && take_compression_level(session, *driver, request.options))
      session.warning("compression_level is not kept in the image: give it to `convert -c`");
    encrypt_new_image(session, request.format, request.options);
    if (const auto backing = arguments.value('b')) request.options.set("backing_file", *backing);
    if (const auto format = arguments.value('F')) request.options.set("backing_fmt", *format);
    const CreateOptions made = request;
    Progress progress(session, arguments.has('p'), arguments.has('q'), 1,
                      Progress::Start::kWhenSlow);
    operation::Caller caller = session.caller(progress);
    operation::create(caller, std::move(request), arguments.has(kOverwrite));
    progress.finish();
    if (session.json) report(session, made);
  } catch (const Error& error) {
    session.error(words[0], error);
    return 1;
  }
  return 0;
}

}  // namespace

Verb create_verb() {
  return {
      .name = "create",
      .summary = "creates an image",
      .synopsis = "[--object DEF] [-q] [-f FMT] [-b BACKING [-F BFMT]] [-u] [-o OPTS] FILE [SIZE]",
      .flags = {{'f', "format", "FMT", "format of the image"},
                {'b', "backing", "FILE", "backing file of the image"},
                {'F', "backing-format", "FMT", "format of the backing file"},
                {'u', "backing-unsafe", nullptr, "do not open the backing file"},
                {'o', "options", "OPTS", "options of the format; `help` lists them"},
                kQuietFlag,
                kObjectFlag},
      .own_flags = {kOverwriteFlag, kProgressFlag},
      .run = run_create};
}

}  // namespace cairn::cli
