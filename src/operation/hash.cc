#include "operation/hash.h"

#include "async/finally.h"
#include "block/driver.h"
#include "job/hash.h"
#include "operation/data_budget.h"
#include "operation/pipes.h"
#include "operation/snapshot.h"

namespace cairn::operation {
namespace {

// False when what comes from standard input is no raw disk.
Task<bool> hash_stream(Caller& caller, std::string format, std::string algorithm, Hashed& result) {
  StandardInput& input = standard_input(caller);
  co_await input.look(std::move(format));
  if (!input.streams()) co_return false;
  Digest digest{algorithm};
  result.bytes = co_await copy_stream(caller, input, nullptr, &digest);
  result.format = "raw";
  result.digest = digest.finish();
  co_return true;
}

}  // namespace

void check_algorithm(const std::string& algorithm) { Digest{algorithm}; }

Task<Hashed> hash(Caller& caller, OpenRequest request, HashOptions options) {
  const std::string& algorithm = options.algorithm;
  const std::string& snapshot = options.snapshot;
  // The digest of a disk that changes meanwhile would say nothing.
  request.flags.unshare_write = !request.flags.force_share;
  const std::string name = shown_name(request);
  Hashed result;
  if (snapshot.empty() && is_pipe(caller, request.filename)) {
    const bool streamed = co_await hash_stream(caller, request.format, algorithm, result);
    if (streamed) co_return result;
  }
  NodePtr node = co_await open_source(caller, std::move(request), options.quiet);
  co_await finally(
      [&]() -> Task<void> {
        if (!snapshot.empty()) co_await show_snapshot(*node, snapshot);
        result.format = node->driver().name();
        result.bytes = node->length();
        Hash job(caller.context, node, algorithm, caller.cancel);
        job.progress = [&](uint64_t done, uint64_t total) { caller.progress(done, total); };
        co_await bound_data(caller, node, name, job.budget);
        result.digest = co_await job.run();
      },
      [&] { return close_all({node}); });
  co_return result;
}

}  // namespace cairn::operation
