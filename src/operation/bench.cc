#include "operation/bench.h"

#include <chrono>

#include "async/finally.h"

namespace cairn::operation {

Task<double> bench(const Caller& caller, OpenRequest request, BenchOptions options, bool overlay,
                   std::function<void()> opened) {
  NodePtr node = co_await open_image(caller.context, std::move(request), overlay);
  double seconds = 0;
  co_await finally(
      [&]() -> Task<void> {
        try {
          opened();
          Bench job(caller.context, node, options, caller.cancel);
          job.progress = [&](uint64_t done, uint64_t total) { caller.progress(done, total); };
          const auto begin = std::chrono::steady_clock::now();
          co_await job.run();
          caller.progress(options.count * options.size, options.count * options.size);
          seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        } catch (const Error& caught) {
          Error told(caught.kind(), "Failed request: " + caught.cause());
          if (caller.guarded && caught.message() != caught.cause()) told.hint(caught.message());
          throw told;
        }
      },
      [&] { return close_all({node}); });
  co_return seconds;
}

}  // namespace cairn::operation
