#include "protocol/sheepdog/cluster.h"

#include <algorithm>

namespace cairn::sheepdog {
namespace {

constexpr size_t kMostLinks = 16;
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

Task<void> Cluster::open() {
  Worker& home = Worker::current()->home();
  const unsigned own = home.resident_index().value();
  links_.resize(std::max<size_t>(std::min<size_t>(runtime_.worker_count(), kMostLinks), own + 1));
  links_[own] = std::make_unique<Link>(target_, home);
  main_ = links_[own].get();
  co_await run_on(home, main_->open());
  for (unsigned i = 0; i < links_.size(); ++i)
    if (!links_[i]) links_[i] = std::make_unique<Link>(target_, runtime_.worker(i));
}

Task<void> Cluster::send(Operation& operation) {
  Worker* here = Worker::current();
  const size_t index = here->resident_index().value_or(links_.size());
  if (here != &main_->worker() && index < links_.size()) {
    Link& own = *links_[index];
    const bool there = co_await own.open_once();
    if (there) {
      co_await own.perform(operation);
      co_return;
    }
  }
  if (here == &main_->worker())
    co_await main_->perform(operation);
  else
    co_await run_on(main_->worker(), main_->perform(operation));
}

Task<Result> Cluster::ask(Operation& operation) {
  const auto deadline = std::chrono::steady_clock::now() + target_.timeout;
  auto pause = kFirstDelay;
  while (true) {
    co_await send(operation);
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
  co_await run_on(main_->worker(), set_lock(*main_, std::move(name), vdi));
}

Task<void> Cluster::stop_repairs() {
  for (const std::unique_ptr<Link>& link : links_)
    if (link) co_await run_on(link->worker(), no_repairs(*link));
}

Task<void> Cluster::close() {
  for (const std::unique_ptr<Link>& link : links_) {
    if (!link) continue;
    if (&link->worker() == Worker::current())
      co_await link->close();
    else
      co_await run_on(link->worker(), link->close());
  }
}

}  // namespace cairn::sheepdog
