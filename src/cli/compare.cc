#include "operation/compare.h"

#include <fmt/core.h>

#include "cli/progress.h"
#include "cli/report.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

std::string_view name_of(CompareResult::Kind kind) {
  switch (kind) {
    case CompareResult::Kind::kSize:
      return "size";
    case CompareResult::Kind::kStatus:
      return "allocation";
    case CompareResult::Kind::kContent:
      return "content";
    case CompareResult::Kind::kIdentical:
      break;
  }
  return {};
}

void report(const Session& session, const std::vector<std::string>& files,
            const CompareResult& result) {
  Value out = Value::object();
  out.set("files", array_of(files));
  out.set("identical", result.kind == CompareResult::Kind::kIdentical);
  out.set("sizes-differ", result.sizes_differ);
  if (result.kind != CompareResult::Kind::kIdentical) out.set("difference", name_of(result.kind));
  if (result.kind == CompareResult::Kind::kStatus || result.kind == CompareResult::Kind::kContent)
    out.set("offset", result.offset);
  print_report(session, out);
}

int run_compare(Session& session, Arguments& arguments) {
  const bool quiet = arguments.has('q');
  const auto& words = arguments.words();
  if (words.size() != 2) throw UsageError{"Expecting two image file names"};
  if (arguments.has(kImageOpts) && (arguments.has('f') || arguments.has('F')))
    fail(session, "--image-opts and --format are mutually exclusive", 2);
  if (add_objects(session, arguments)) return 0;
  OpenRequest first = image_request(session, arguments, words[0], arguments.value('f'));
  OpenRequest second = image_request(session, arguments, words[1], arguments.value('F'));
  second.options.erase("disk");
  const std::string cache = arguments.value_or('T', "writeback");
  if (!CacheMode::parse(cache)) fail(session, "Invalid source cache option: " + cache, 2);
  first.flags.cache = second.flags.cache = *CacheMode::parse(cache);
  const auto say = [&](const std::string& text) {
    if (!quiet) session.say(text + "\n");
  };
  Progress progress(session, arguments.has('p'), quiet, 2);
  const CompareOptions options{.strict = arguments.has('s')};
  CompareResult result;
  try {
    operation::Caller caller = session.caller(progress);
    result = run(session,
                 operation::compare(caller, std::move(first), std::move(second), options, quiet));
  } catch (const CompareFailure& failure) {
    const std::string& name = words[failure.image];
    progress.finish();
    if (failure.step == CompareFailure::Step::kStatus) {
      session.error("Sector allocation test failed for " + name, failure.error);
      return 3;
    }
    session.error(fmt::format("Error while reading offset {} of {}: {}", failure.offset, name,
                              failure.error.cause()));
    return 4;
  }
  if (session.json) report(session, words, result);
  progress.finish();
  switch (result.kind) {
    case CompareResult::Kind::kSize:
      say("Strict mode: Image size mismatch!");
      return 1;
    case CompareResult::Kind::kStatus:
      say(fmt::format("Strict mode: Offset {} block status mismatch!", result.offset));
      return 1;
    case CompareResult::Kind::kContent:
      // QEMU's tool comes to the sizes once all that both have is the same.
      if (result.sizes_differ && result.offset >= result.common_length)
        say("Warning: Image size mismatch!");
      say(fmt::format("Content mismatch at offset {}!", result.offset));
      return 1;
    case CompareResult::Kind::kIdentical:
      break;
  }
  if (result.sizes_differ) say("Warning: Image size mismatch!");
  say("Images are identical.");
  return 0;
}

}  // namespace

Verb compare_verb() {
  return {.name = "compare",
          .summary = "compares the contents of two images",
          .synopsis =
              "[--object DEF] [--image-opts] [-f FMT] [-F FMT] [-T CACHE] [-p] [-q] [-s] [-U] "
              "FILE1 FILE2",
          .flags = {{'f', "a-format", "FMT", "format of FILE1"},
                    {'F', "b-format", "FMT", "format of FILE2"},
                    {'T', "cache", "MODE", "cache mode of both"},
                    kProgressFlag,
                    kQuietFlag,
                    {'s', "strict", nullptr, "sizes and allocation must be equal, too"},
                    kForceShareFlag,
                    kImageOptsFlag,
                    kObjectFlag},
          .own_flags = {kDiskFlag, kLimitRateFlag},
          .run = run_compare,
          .failure = 2};
}

}  // namespace cairn::cli
