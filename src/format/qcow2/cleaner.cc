#include "format/qcow2/node.h"

namespace cairn {

// Tables that were not used for cache-clean-interval leave memory, also while nobody asks the image
// for anything. An image that is never closed is not kept alive by this. Nothing runs before there
// is a table: who only looks at the header needs no thread.

void Qcow2Node::start_cleaner() {
  if (clean_interval_.count() == 0) return;
  const auto begin = [this] {
    const std::lock_guard lock(cleaner_mutex_);
    if (cleaner_) return;
    Worker& home = Worker::current()->home();
    cleaner_ = std::make_shared<Cleaner>(home);
    spawn_detached_on(home, clean_from_time_to_time(weak_from_this(), cleaner_, clean_interval_));
  };
  if (l2_->size() != 0 || refcounts_->size() != 0) begin();
  l2_->set_on_first_block(begin);
  refcounts_->set_on_first_block(begin);
}

Task<void> Qcow2Node::clean_from_time_to_time(std::weak_ptr<Node> node,
                                              std::shared_ptr<Cleaner> own,
                                              std::chrono::seconds interval) {
  while (!own->nap.woken()) {
    co_await own->nap.sleep_for(interval);
    const NodePtr alive = node.lock();
    if (!alive) break;
    auto& image = static_cast<Qcow2Node&>(*alive);
    image.l2_->clean();
    image.refcounts_->clean();
  }
  own->ended.release();
}

Task<void> Qcow2Node::end_cleaner() {
  if (!l2_) co_return;
  l2_->set_on_first_block(nullptr);
  refcounts_->set_on_first_block(nullptr);
  std::shared_ptr<Cleaner> cleaner;
  {
    const std::lock_guard lock(cleaner_mutex_);
    cleaner.swap(cleaner_);
  }
  if (!cleaner) co_return;
  co_await cleaner->nap.wake();
  co_await cleaner->ended.acquire();
}

}  // namespace cairn
