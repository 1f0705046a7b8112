#include "protocol/nvme/admin_queue.h"

#include <fmt/core.h>

#include <algorithm>

namespace cairn::nvme {
namespace {

// As many as find room in the smallest page.
constexpr uint32_t kAdminEntries = 32;

}  // namespace

AdminQueue::AdminQueue(Device& device, DmaSpace& space, const Capabilities& capabilities)
    : device_(device),
      page_bytes_(capabilities.page_bytes),
      entries_(std::min(kAdminEntries, capabilities.most_entries)),
      memory_(space, 3 * page_bytes_),
      queues_(device,
              {.number = 0,
               .entries = entries_,
               .submissions = memory_.span().first(entries_ * kCommandBytes),
               .completions = memory_.span().subspan(page_bytes_, entries_ * kCompletionBytes),
               .doorbell_bytes = capabilities.doorbell_bytes}) {}

void AdminQueue::place() {
  queues_.restart();
  device_.write32(kAdminEntriesAt, (entries_ - 1) << 16 | (entries_ - 1));
  device_.write64(kAdminSubmissionsAt, memory_.iova());
  device_.write64(kAdminCompletionsAt, memory_.iova() + page_bytes_);
}

Task<Completion> AdminQueue::perform(Command command, std::string what,
                                     std::chrono::milliseconds timeout) {
  if (queues_.room() == 0)
    throw Error(ErrorKind::kIo, what + ": the controller does not take commands");
  const uint16_t id = ++next_id_;
  queues_.push(command, id);
  queues_.ring();
  std::optional<Completion> completion;
  bool gone = false;
  const auto look = [&] {
    // An answer to a command that was given up is passed over.
    for (uint32_t n = 0; n < entries_ && !completion; ++n) {
      const auto one = queues_.pop();
      if (!one) break;
      if (one->command == id) completion = one;
    }
    queues_.acknowledge();
    gone = !completion && device_.read32(kStatusAt) == kGone32;
    return completion || gone;
  };
  const bool answered = co_await wait_until(look, timeout);
  if (gone) throw Error(ErrorKind::kIo, "the NVMe controller is gone");
  if (!answered)
    throw Error(ErrorKind::kIo,
                fmt::format("{}: the controller did not answer in {} ms", what, timeout.count()));
  if (!completion->status.ok())
    throw Error(completion->status.kind(), what + ": " + completion->status.text());
  co_return *completion;
}

}  // namespace cairn::nvme
