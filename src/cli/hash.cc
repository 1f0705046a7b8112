#include "operation/hash.h"

#include "cli/progress.h"
#include "cli/report.h"
#include "cli/verbs.h"

namespace cairn::cli {

namespace {

int run_hash(Session& session, Arguments& arguments) {
  const auto& words = arguments.words();
  if (words.size() != 1) throw UsageError{"Expecting one image file name"};
  check_format_flags(session, arguments);
  if (add_objects(session, arguments)) return 0;
  const std::string algorithm = arguments.value_or('a', "sha256");
  operation::check_algorithm(algorithm);
  OpenRequest request = image_request(session, arguments, words[0], arguments.value('f'));
  request.flags.cache =
      cache_mode(session, arguments.value_or('T', "writeback"), "Invalid source cache option");
  Progress progress(session, arguments.has('p'), arguments.has('q'), 1);
  operation::Caller caller = session.caller(progress);
  operation::HashOptions options{
      .algorithm = algorithm, .snapshot = arguments.value_or('l', ""), .quiet = arguments.has('q')};
  const auto result = run(session, operation::hash(caller, std::move(request), std::move(options)));
  progress.finish();
  if (session.json) {
    Value out = Value::object();
    out.set("filename", words[0]);
    out.set("format", result.format);
    out.set("virtual-size", result.bytes);
    out.set("algorithm", algorithm);
    out.set("digest", result.digest);
    print_report(session, out);
    return 0;
  }
  print(result.digest + "  " + words[0] + "\n");
  return 0;
}

}  // namespace

Verb hash_verb() {
  return {.name = "hash",
          .summary = "prints a checksum of the content of a disk",
          .synopsis =
              "[--object DEF] [--image-opts] [-a ALGORITHM] [-f FMT] [-l SNAP] [--output=FMT] "
              "[-T CACHE] [-p] [-U] FILE",
          .flags = {{'a', "algorithm", "NAME", "sha256 (when not given), sha512, blake2b, …"},
                    kFormatFlag,
                    {'l', "snapshot", "SNAP", "read this internal snapshot"},
                    kOutputFlag,
                    {'T', "source-cache", "MODE", "cache mode of the image (writeback)"},
                    kProgressFlag,
                    kQuietFlag,
                    kForceShareFlag,
                    kImageOptsFlag,
                    kObjectFlag},
          .own_flags = {kDiskFlag, kLimitRateFlag},
          .run = run_hash,
          .own = true};
}

}  // namespace cairn::cli
