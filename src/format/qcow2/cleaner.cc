#include "format/qcow2/node.h"

namespace cairn {

// Tables that were not used for cache-clean-interval leave memory, also while nobody asks the image
// for anything. An image that is never closed is not kept alive by this.

void Qcow2Node::start_cleaner() {
  if (clean_interval_.count() == 0) return;
  cleaner_ = std::make_shared<Cleaner>();
  spawn_detached(clean_from_time_to_time(weak_from_this(), cleaner_, clean_interval_));
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
  const std::shared_ptr<Cleaner> cleaner = std::exchange(cleaner_, nullptr);
  if (!cleaner) co_return;
  co_await cleaner->nap.wake();
  co_await cleaner->ended.acquire();
}

}  // namespace cairn
