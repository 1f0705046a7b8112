#include "protocol/sheepdog/cluster.h"

#include <algorithm>

namespace cairn::sheepdog {
namespace {

constexpr std::chrono::milliseconds kFirstDelay{100};
constexpr std::chrono::milliseconds kLongestDelay{1000};

Task<void> set_lock(Link& link, std::string name, uint32_t vdi) {
  link.keep_lock(std::move(name), vdi);
  co_return;
}

Task<void> no_repairs(Link& link) {
  link.stop_repairs();
  co_return;
}

}  // namespace

Cluster::Cluster(Runtime& runtime, Target target)
    : runtime_(runtime),
      target_(std::move(target)),
      links_([this](Worker& worker) { return std::make_unique<Link>(target_, worker); }) {}

Task<void> Cluster::open() {
  co_await links_.open(runtime_);
  links_.add_others(runtime_);
}

Task<Result> Cluster::ask(Operation& operation) {
  const auto deadline = std::chrono::steady_clock::now() + target_.timeout;
  auto pause = kFirstDelay;
  while (true) {
    co_await links_.perform(operation);
    const Result result = operation.response.result;
    if (!is_passing(result) || std::chrono::steady_clock::now() >= deadline) co_return result;
    co_await sleep_for(pause);
    pause = std::min(pause * 2, kLongestDelay);
  }
}

Task<void> Cluster::perform(Operation& operation, std::string what) {
  const Result result = co_await ask(operation);
  if (result != Result::kSuccess) throw_result(result, what);
}

Task<void> Cluster::keep_lock(std::string name, uint32_t vdi) {
  co_await links_.on_main([&name, vdi](Link& link) { return set_lock(link, name, vdi); });
}

Task<void> Cluster::stop_repairs() {
  co_await links_.on_all([](Link& link) { return no_repairs(link); });
}

}  // namespace cairn::sheepdog
