#include "protocol/nvme/queue_pair.h"

#include <algorithm>

namespace cairn::nvme {

QueuePair::QueuePair(Device& device, Place place) : device_(device), place_(place) {
  if (doorbell(true) + sizeof(uint32_t) > device.register_bytes())
    throw Error(ErrorKind::kUnsupported,
                "the registers of the controller end before its doorbells");
  restart();
}

void QueuePair::restart() {
  std::fill(place_.submissions.begin(), place_.submissions.end(), std::byte{});
  std::fill(place_.completions.begin(), place_.completions.end(), std::byte{});
  tail_ = seen_ = used_ = rung_ = head_ = given_ = 0;
  phase_ = true;
}

void QueuePair::push(const Command& command, uint16_t id) {
  command.encode(place_.submissions.subspan(tail_ * kCommandBytes, kCommandBytes), id);
  tail_ = (tail_ + 1) % place_.entries;
  ++used_;
}

void QueuePair::ring() {
  if (rung_ == tail_) return;
  rung_ = tail_;
  device_.write32(doorbell(false), tail_);
}

std::optional<Completion> QueuePair::pop() {
  const MutableByteSpan entry =
      place_.completions.subspan(head_ * kCompletionBytes, kCompletionBytes);
  // The device writes the phase last; what is read after it is complete.
  auto* const last =
      reinterpret_cast<uint16_t*>(entry.data() + kCompletionBytes - sizeof(uint16_t));
  const uint16_t status = std::atomic_ref<uint16_t>(*last).load(std::memory_order_acquire);
  constexpr size_t kPhaseByte = std::endian::native == std::endian::little ? 0 : 8;
  if (((status >> kPhaseByte & 1) != 0) != phase_) return std::nullopt;
  const Completion completion = Completion::decode(entry);
  if (completion.submissions_head >= place_.entries || completion.queue != place_.number)
    throw Error(ErrorKind::kIo, "the controller wrote a completion that makes no sense");
  const uint32_t taken = (completion.submissions_head + place_.entries - seen_) % place_.entries;
  if (taken > used_)
    throw Error(ErrorKind::kIo, "the controller took commands that were never sent");
  seen_ = completion.submissions_head;
  used_ -= taken;
  if (++head_ == place_.entries) {
    head_ = 0;
    phase_ = !phase_;
  }
  return completion;
}

void QueuePair::acknowledge() {
  if (given_ == head_) return;
  given_ = head_;
  device_.write32(doorbell(true), head_);
}

}  // namespace cairn::nvme
