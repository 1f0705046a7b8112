#include "job/compare.h"

#include "cli/data_budget.h"
#include "cli/pipes.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

std::string shown_name(const OpenRequest& request) {
  return request.filename.empty() ? request.display : request.filename;
}

Task<CompareResult> compare_images(Session& session, OpenRequest first, OpenRequest second,
                                   CompareOptions options, bool quiet, Progress& progress) {
  const std::string names[] = {shown_name(first), shown_name(second)};
  NodePtr a = co_await open_source(session, std::move(first), quiet);
  NodePtr b;
  std::exception_ptr error;
  CompareResult result;
  try {
    b = co_await open_source(session, std::move(second), quiet);
    Compare job(session.context, a, b, options, session.cancel);
    job.progress = [&](uint64_t done, uint64_t total) { progress.update(done, total); };
    co_await bound_data(session, a, names[0], job.budgets[0]);
    co_await bound_data(session, b, names[1], job.budgets[1]);
    result = co_await job.run();
  } catch (...) {
    error = std::current_exception();
  }
  std::vector<NodePtr> nodes = {a, b};
  co_await close_all(std::move(nodes), error);
  co_return result;
}

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

}  // namespace

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
    result = run(session, compare_images(session, std::move(first), std::move(second), options,
                                         quiet, progress));
  } catch (const CompareFailure& failure) {
    const std::string& name = words[failure.image];
    progress.finish();
    if (failure.step == CompareFailure::Step::kStatus) {
      session.error("Sector allocation test failed for " + name, failure.error);
      return 3;
    }
    session.error("Error while reading offset " + std::to_string(failure.offset) + " of " + name +
                  ": " + failure.error.cause());
    return 4;
  }
  if (session.json) report(session, words, result);
  progress.finish();
  switch (result.kind) {
    case CompareResult::Kind::kSize:
      say("Strict mode: Image size mismatch!");
      return 1;
    case CompareResult::Kind::kStatus:
      say("Strict mode: Offset " + std::to_string(result.offset) + " block status mismatch!");
      return 1;
    case CompareResult::Kind::kContent:
      // QEMU's tool comes to the sizes once all that both have is the same.
      if (result.sizes_differ && result.offset >= result.common_length)
        say("Warning: Image size mismatch!");
      say("Content mismatch at offset " + std::to_string(result.offset) + "!");
      return 1;
    case CompareResult::Kind::kIdentical:
      break;
  }
  if (result.sizes_differ) say("Warning: Image size mismatch!");
  say("Images are identical.");
  return 0;
}

}  // namespace cairn::cli
