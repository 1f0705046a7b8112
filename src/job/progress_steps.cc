#include "job/progress_steps.h"

#include <algorithm>

namespace cairn {
namespace {
// QEMU's tools show progress after each of their requests, which are as long as this.
constexpr uint64_t kStepBytes = 2 << 20;
}  // namespace

std::shared_ptr<ProgressSteps::Step> ProgressSteps::take(uint64_t offset, uint64_t end) {
  if (last_ == nullptr || offset >= last_->end) {
    this->end();
    last_ = std::make_shared<Step>(std::min(end, offset + kStepBytes));
  }
  ++last_->open;
  return last_;
}

void ProgressSteps::end() {
  if (last_ != nullptr) done(*last_, 0);
  last_ = nullptr;
}

void ProgressSteps::done(Step& step, uint64_t bytes) const {
  step.bytes += bytes;
  if (--step.open == 0 && step.bytes != 0) report(step.bytes);
}

}  // namespace cairn
