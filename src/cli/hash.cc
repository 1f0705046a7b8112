#include "job/hash.h"

#include "base/size.h"
#include "block/driver.h"
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

Task<Hashed> hash_image(Session& session, OpenRequest request, std::string algorithm,
                        std::string snapshot, Progress& progress) {
  NodePtr node = co_await open_node(session.context, std::move(request));
  Hashed result;
  std::exception_ptr error;
  try {
    if (!snapshot.empty()) co_await show_snapshot(*node, snapshot);
    result.format = node->driver().name();
    result.bytes = node->length();
    Hash job(session.context, node, algorithm, session.cancel);
    job.progress = [&](uint64_t done, uint64_t total) { progress.update(done, total); };
    // A small file may map one cluster, or little that is compressed, to petabytes.
    const uint64_t stored = (co_await node->allocated_bytes()).value_or(UINT64_MAX);
    constexpr uint64_t kAlways = uint64_t{1} << 30;
    if (stored < (UINT64_MAX - kAlways) / 100)
      job.most_data = session.output_budget.value_or(kAlways + 100 * stored);
    job.excess = [&] {
      const std::string text = "the image holds more than " + human_size(job.most_data) +
                               " of data in a file of " + human_size(stored) +
                               ": it maps the same clusters again and again, or is compressed";
      if (!session.untrusted) {
        session.warning(text + "; the work may take very long, Ctrl-C ends it");
        return;
      }
      throw Error(ErrorKind::kTooLarge, text)
          .hint("If that is all right, --budget output=SIZE allows more.");
    };
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
                                     arguments.value_or('l', ""), progress));
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
