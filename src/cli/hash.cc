#include "job/hash.h"

#include "block/driver.h"
#include "cli/data_budget.h"
#include "cli/pipes.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/snapshot_table.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

struct Hashed {
  std::string digest;
  std::string format;
  uint64_t bytes = 0;
};

// False when what comes from standard input is no raw disk.
Task<bool> hash_stream(Session& session, std::string format, std::string algorithm,
                       Hashed& result) {
  StandardInput& input = standard_input(session);
  co_await input.look(std::move(format));
  if (!input.streams()) co_return false;
  Digest digest{algorithm};
  result.bytes = co_await copy_stream(session, input, nullptr, &digest);
  result.format = "raw";
  result.digest = digest.finish();
  co_return true;
}

Task<Hashed> hash_image(Session& session, OpenRequest request, std::string algorithm,
                        std::string snapshot, bool quiet, Progress& progress) {
  const std::string name = request.filename.empty() ? request.display : request.filename;
  Hashed result;
  if (snapshot.empty() && is_pipe(session, request.filename)) {
    const bool streamed = co_await hash_stream(session, request.format, algorithm, result);
    if (streamed) co_return result;
  }
  NodePtr node = co_await open_source(session, std::move(request), quiet);
  std::exception_ptr error;
  try {
    if (!snapshot.empty()) co_await show_snapshot(*node, snapshot);
    result.format = node->driver().name();
    result.bytes = node->length();
    Hash job(session.context, node, algorithm, session.cancel);
    job.progress = [&](uint64_t done, uint64_t total) { progress.update(done, total); };
    co_await bound_data(session, node, name, job.budget);
    result.digest = co_await job.run();
  } catch (...) {
    error = std::current_exception();
  }
  std::vector<NodePtr> nodes(1, node);
  co_await close_all(std::move(nodes), error);
  co_return result;
}

}  // namespace

int run_hash(Session& session, Arguments& arguments) {
  const auto& words = arguments.words();
  if (words.size() != 1) throw UsageError{"Expecting one image file name"};
  check_format_flags(session, arguments);
  if (add_objects(session, arguments)) return 0;
  const std::string algorithm = arguments.value_or('a', "sha256");
  Digest{algorithm};  // a wrong name is told before anything is opened
  OpenRequest request = image_request(session, arguments, words[0], arguments.value('f'));
  request.flags.cache =
      cache_mode(session, arguments.value_or('T', "writeback"), "Invalid source cache option");
  // The digest of a disk that changes meanwhile would say nothing.
  request.flags.unshare_write = !request.flags.force_share;
  Progress progress(session, arguments.has('p'), arguments.has('q'), 1);
  Hashed result;
  try {
    result = run(session, hash_image(session, std::move(request), algorithm,
                                     arguments.value_or('l', ""), arguments.has('q'), progress));
  } catch (Error& error) {
    progress.finish();
    throw;
  }
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

}  // namespace cairn::cli
