#include <fmt/core.h>

#include <cstdio>

#include "cli/convert_options.h"
#include "cli/convert_plan.h"
#include "cli/convert_report.h"
#include "cli/presets.h"
#include "cli/progress.h"
#include "cli/verbs.h"
#include "operation/conversion.h"
#include "operation/hash.h"

namespace cairn::cli {
namespace {

// The exit code when --verify finds a difference.
constexpr int kDiffers = 2;

int convert_images(Session& session, const Arguments& arguments, ConvertPlan plan) {
  const ConvertReport report{.names = arguments.words(),
                             .algorithm = plan.hash,
                             .verified = plan.verify,
                             .preset = plan.preset,
                             .image = plan.image,
                             .quiet = plan.quiet,
                             .salvaged = arguments.has(kSalvage),
                             .resumable = arguments.has(kResume)};
  if (plan.take_output) {
    // Before anything is printed there.
    operation::PipeTarget::check(plan.format, plan.create_options);
    plan.take_output = [fd = plan.take_output()] { return fd; };
  }
  Progress progress(session, arguments.has('p'), plan.quiet, 1);
  operation::Caller caller = session.caller(progress);
  operation::ConversionResult done;
  try {
    done = operation::convert(caller, std::move(plan));
  } catch (const operation::TargetDiffers& found) {
    progress.finish();
    session.error(
        fmt::format("'{}' differs from the source at byte {}, although writing reported no error",
                    report.names.back(), found.offset));
    std::fprintf(stderr,
                 "The target must not be used. Its storage, this machine's memory, or a program "
                 "that wrote meanwhile may be the cause.\n");
    return kDiffers;
  }
  if (!session.manners.bars) progress.update(1, 1);
  progress.finish();
  report_conversion(session, report, done);
  return 0;
}

int run_convert(Session& session, Arguments& arguments) {
  if (arguments.value_or(kFor, "") == "help") return print_presets(session);
  ConvertPlan plan;
  bool help = false;
  auto options = option_lists(session, arguments, &help);
  const auto& words = arguments.words();
  const bool image_opts = arguments.has(kTargetImageOpts);
  plan.quiet = arguments.has('q');
  plan.create = !arguments.has('n');
  plan.overwrite = arguments.has(kOverwrite);
  plan.count_data = session.manners.counts_data;
  plan.format = arguments.value_or('O', "");
  if (help) {
    if (plan.format.empty() && image_opts)
      fail(session, "Option help requires a format be specified");
    if (plan.format.empty()) plan.format = "raw";
    // A single name is that of a source.
    const bool target = words.size() > (session.manners.own_words ? 0 : 1);
    return print_create_help(session, plan.format, target ? words.back() : std::string());
  }
  plan.job = convert_job_options(session, arguments);
  check_convert_conflicts(session, arguments);
  if (words.size() < 2 && session.manners.explains)
    throw UsageError{"convert needs a source and a target: cairn convert SOURCE… TARGET"};
  if (words.size() < 2) fail(session, "Must specify image file name");
  if (session.manners.own_words) check_names(session, arguments);
  plan.target = words.back();
  if (plan.format.empty() && arguments.has('O')) fail(session, "Unknown file format ''");
  if (plan.format.empty() && !image_opts && !arguments.has(kFor))
    plan.format = format_for_target(session, plan.target);
  if (add_objects(session, arguments)) return 0;
  plan.target_cache =
      cache_mode(session, arguments.value_or('t', arguments.has(kResume) ? "writeback" : "unsafe"),
                 "Invalid cache option");
  const CacheMode source_cache =
      cache_mode(session, arguments.value_or('T', "writeback"), "Invalid source cache option");
  plan.given_zero = arguments.has(kTargetIsZero);
  plan.verify = arguments.has(kVerify);
  plan.hash = arguments.value_or(kHash, "");
  if (arguments.has(kHash)) operation::check_algorithm(plan.hash);
  plan.snapshot = arguments.value('l');
  if (plan.snapshot && !plan.snapshot->starts_with("snapshot.") && words.size() > 2)
    fail(session, "No support for concatenating multiple snapshot");
  plan.all_snapshots = arguments.has(kAllSnapshots);
  plan.bitmaps = arguments.has(kBitmaps);
  plan.skip_broken_bitmaps = arguments.has(kSkipBrokenBitmaps);
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    OpenRequest request = image_request(session, arguments, words[i], arguments.value('f'));
    request.flags.cache = source_cache;
    // What is copied must not change meanwhile, nor be the target.
    request.flags.unshare_write = true;
    request.flags.salvage = arguments.has(kSalvage) && session.manners.own_words;
    plan.sources.push_back(std::move(request));
  }
  Options creation = options.value_or(Options{});
  if (arguments.has(kFor)) plan_preset(session, arguments, creation, plan);
  if (plan.create)
    plan_creation(session, arguments, std::move(creation), plan.sources.size(), plan);

  if (image_opts) {
    OpenRequest& request = plan.opened_as.emplace();
    request.options = image_options(session, plan.target);
    request.image_opts = true;
    request.display = plan.target;
  }
  plan_pipes(session, arguments, plan);
  if (arguments.has(kResume)) plan_resumption(session, arguments, plan);
  return convert_images(session, arguments, std::move(plan));
}

}  // namespace

Verb convert_verb() {
  return {
      .name = "convert",
      .summary = "copies an image into another format",
      .synopsis =
          "[--object DEF] [--image-opts] [--target-image-opts] [--target-is-zero] [-U] [-C] [-c] "
          "[-p] "
          "[-q] [-n] "
          "[-f FMT] [-t CACHE] [-T CACHE] [-O FMT] [-B FILE [-F FMT]] [-o OPTS] [-l SNAP] [-S "
          "SIZE] "
          "[-r RATE] [-m N] [-W] [--salvage] [--bitmaps [--skip-broken-bitmaps]] FILE [FILE2…] "
          "TARGET",
      .flags = {{'f', "source-format", "FMT", "format of the sources"},
                {kImageOpts, "source-image-opts", nullptr, "as --image-opts"},
                {'O', "output-format", "FMT", "as --target-format"},
                {'O', "target-format", "FMT", "format of the target"},
                {'o', "target-options", "OPTS",
                 "options for creating the target; `help` lists them"},
                {'B', "backing", "FILE", "backing file of the target"},
                {'F', "backing-format", "FMT", "its format"},
                {'c', "compress", nullptr, "compress the target"},
                {'C', "copy-range-offloading", nullptr, "let the kernel copy data where possible"},
                {'n', "no-create", nullptr, "the target exists"},
                {kTargetImageOpts, "target-image-opts", nullptr, "the target is a list of options"},
                {kTargetIsZero, "target-is-zero", nullptr, "the existing target reads as zeroes"},
                {'l', "snapshot", "SNAP", "read this internal snapshot"},
                {'S', "sparse-size", "BYTES",
                 "shortest run of zeroes that is not written (4k); 0: write all"},
                {'m', "parallel", "N", "requests at a time, 1 to 16 (8)"},
                {'W', "oob-writes", nullptr, "write in any order"},
                {'r', "rate", "BYTES", "write at most so many bytes a second"},
                {kSalvage, "salvage", nullptr, "replace unreadable ranges with zeroes"},
                {kBitmaps, "bitmaps", nullptr, "copy persistent bitmaps as well"},
                {kSkipBrokenBitmaps, "skip-broken-bitmaps", nullptr, "skip inconsistent bitmaps"},
                {'t', "target-cache", "MODE", "cache mode of the target (unsafe)"},
                {'T', "source-cache", "MODE", "cache mode of the sources (writeback)"},
                kProgressFlag,
                kQuietFlag,
                kForceShareFlag,
                kImageOptsFlag,
                kObjectFlag},
      .own_flags =
          {{kAllSnapshots, "all-snapshots", nullptr, "copy the internal snapshots, too"},
           kDiskFlag,
           {kFor, "for", "NAME",
            "make what this cloud or hypervisor takes, and check it; `--for help` lists them"},
           kOverwriteFlag,
           kLimitRateFlag,
           {kHash, "hash", "NAME", "print a checksum of the content: sha256, sha512, blake2b, …"},
           {kResume, "resume", "[=FILE]",
            "leave the target when the work ends early, and continue with it next time; the "
            "journal "
            "is FILE, or TARGET.cairn-resume"},
           {kVerify, "verify", nullptr, "read the target back and compare it with the source"}},
      .run = run_convert};
}

}  // namespace cairn::cli
