#include "operation/check.h"

#include <fmt/core.h>

#include <cstdio>

#include "cli/progress.h"
#include "cli/verbs.h"
#include "qemu/json_order.h"

namespace cairn::cli {
namespace {

void print_finding(std::string_view line) {
  std::fprintf(stderr, "%.*s\n", static_cast<int>(line.size()), line.data());
}

void print_repaired(const CheckResult& result) {
  print(
      fmt::format("The following inconsistencies were found and repaired:\n\n    {} leaked "
                  "clusters\n    {} corruptions\n\nDouble checking the fixed image now...\n",
                  result.leaks_fixed, result.corruptions_fixed));
}

void print_json(const operation::CheckOutcome& outcome, const std::string& filename) {
  const CheckResult& result = outcome.result;
  Value out = Value::object();
  const auto some = [&](std::string_view key, uint64_t value) {
    if (value != 0) out.set(key, value);
  };
  some("image-end-offset", result.image_end_offset);
  some("compressed-clusters", result.compressed_clusters);
  some("total-clusters", result.total_clusters);
  some("corruptions", result.corruptions);
  some("corruptions-fixed", result.corruptions_fixed);
  out.set("check-errors", result.check_errors);
  some("leaks", result.leaks);
  some("leaks-fixed", result.leaks_fixed);
  some("allocated-clusters", result.allocated_clusters);
  out.set("filename", filename);
  out.set("format", outcome.format);
  some("fragmented-clusters", result.fragmented_clusters);
  print(out.pretty(qemu::json_order) + "\n");
}

void print_human(const CheckResult& result) {
  const auto count = [](uint64_t value) { return std::to_string(value); };
  if (result.corruptions == 0 && result.leaks == 0 && result.check_errors == 0)
    print("No errors were found on the image.\n");
  if (result.corruptions != 0)
    print("\n" + count(result.corruptions) +
          " errors were found on the image.\n"
          "Data may be corrupted, or further writes to the image may corrupt it.\n");
  if (result.leaks != 0)
    print("\n" + count(result.leaks) +
          " leaked clusters were found on the image.\n"
          "This means waste of disk space, but no harm to data.\n");
  if (result.check_errors != 0)
    print("\n" + count(result.check_errors) + " internal errors have occurred during the check.\n");
  if (result.total_clusters != 0 && result.allocated_clusters != 0) {
    const auto percent = [](uint64_t part, uint64_t whole) {
      return static_cast<double>(part) * 100.0 / static_cast<double>(whole);
    };
    char line[200];
    std::snprintf(
        line, sizeof line,
        "%llu/%llu = %0.2f%% allocated, %0.2f%% fragmented, %0.2f%% compressed clusters\n",
        static_cast<unsigned long long>(result.allocated_clusters),
        static_cast<unsigned long long>(result.total_clusters),
        percent(result.allocated_clusters, result.total_clusters),
        percent(result.fragmented_clusters, result.allocated_clusters),
        percent(result.compressed_clusters, result.allocated_clusters));
    print(line);
  }
  if (result.image_end_offset != 0)
    print("Image end offset: " + count(result.image_end_offset) + "\n");
}

int run_check(Session& session, Arguments& arguments) {
  const bool json = json_output(session, arguments);
  auto repair = CheckRequest::Repair::kNone;
  if (const auto mode = arguments.value('r')) {
    if (*mode == "leaks")
      repair = CheckRequest::Repair::kLeaks;
    else if (*mode == "all")
      repair = CheckRequest::Repair::kAll;
    else
      throw UsageError{"Unknown option value for -r (expecting 'leaks' or 'all'): " + *mode};
  }
  if (arguments.words().size() != 1) throw UsageError{"Expecting one image file name"};
  if (add_objects(session, arguments)) return 0;
  check_format_flags(session, arguments);
  const std::string& name = arguments.words()[0];
  OpenRequest request = image_request(session, arguments, name, arguments.value('f'));
  request.flags.cache =
      cache_mode(session, arguments.value_or('T', "writeback"), "Invalid source cache option");
  const bool human = !json && !arguments.has('q');
  Progress progress(session, arguments.has('p'), arguments.has('q'), 1,
                    Progress::Start::kBesideResults);
  operation::CheckOptions options;
  options.repair = repair;
  options.report = print_finding;
  options.complain = [&](std::string_view line) { session.error(line); };
  if (human) options.repaired = print_repaired;
  const operation::CheckOutcome outcome =
      run(session, operation::check(session.caller(progress), std::move(request), options));
  progress.finish();
  if (outcome.failure) {
    if (session.manners.explains)
      session.error("Check failed", *outcome.failure);
    else
      session.error("Check failed: " + outcome.failure->message());
    return 1;
  }
  if (outcome.unsupported) {
    session.error("This image format does not support checks");
    return 63;
  }
  if (!arguments.has('q')) {
    if (json)
      print_json(outcome, name);
    else
      print_human(outcome.result);
    if (human && session.manners.explains && !outcome.result.plan.empty()) {
      print("\nA repair (check -r MODE) would do this:\n");
      for (const std::string& line : outcome.result.plan) print("    -r " + line + "\n");
    }
  }
  const CheckResult& result = outcome.result;
  if (result.check_errors != 0) fail(session, "Check failed");
  if (result.corruptions != 0) return 2;
  return result.leaks != 0 ? 3 : 0;
}

}  // namespace

Verb check_verb() {
  return {.name = "check",
          .summary = "checks an image for errors, and repairs them on request",
          .synopsis =
              "[--object DEF] [--image-opts] [-q] [-f FMT] [--output=FMT] [-r leaks|all] [-T "
              "CACHE] [-U] "
              "FILE",
          .flags = {kFormatFlag,
                    kOutputFlag,
                    {'r', "repair", "leaks|all", "repair these errors"},
                    {'T', "source-cache", "MODE", "cache mode of the image"},
                    kQuietFlag,
                    kForceShareFlag,
                    kImageOptsFlag,
                    kObjectFlag},
          .own_flags = {kDiskFlag, kProgressFlag},
          .run = run_check};
}

}  // namespace cairn::cli
