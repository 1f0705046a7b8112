#include "export/vhost_user/inflight.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <utility>

#include "base/arith.h"
#include "base/error.h"

namespace cairn::vhost_user {
namespace {

// Of a queue: features 8 bytes, version, number of entries, head of the last batch, used index 2
// bytes each; then 16 bytes for each entry: in flight 1 byte, 5 unused, next 2 bytes, counter 8.
constexpr uint64_t kHeaderBytes = 16, kEntryBytes = 16, kQueueAlignment = 64;
constexpr size_t kVersion = 8, kEntries = 10, kLastBatch = 12, kUsedIndex = 14;
constexpr size_t kInFlight = 0, kNextInBatch = 6, kCounter = 8;
constexpr uint16_t kCurrentVersion = 1;

uint64_t queue_bytes(uint64_t queue_size) {
  return align_up(kHeaderBytes + kEntryBytes * queue_size, kQueueAlignment);
}

// A process that is killed leaves what was stored, in this order.
void in_this_order() { std::atomic_signal_fence(std::memory_order_seq_cst); }

}  // namespace

InflightQueue::InflightQueue(MutableByteSpan bytes, uint16_t queue_size)
    : bytes_(bytes), size_(queue_size) {
  if (load_le<uint16_t>(bytes_, kVersion) == kCurrentVersion) return;
  store_le<uint16_t>(bytes_, kVersion, kCurrentVersion);
  store_le<uint16_t>(bytes_, kEntries, queue_size);
}

MutableByteSpan InflightQueue::entry(uint16_t head) const {
  return bytes_.subspan(kHeaderBytes + kEntryBytes * head, kEntryBytes);
}

std::vector<uint16_t> InflightQueue::recover(uint16_t used_index) {
  // Entries of the last batch may still be marked although they are in the used ring.
  auto batch = static_cast<uint16_t>(used_index - load_le<uint16_t>(bytes_, kUsedIndex));
  uint16_t head = load_le<uint16_t>(bytes_, kLastBatch);
  for (batch = std::min(batch, size_); batch != 0 && head < size_; --batch) {
    store_le<uint8_t>(entry(head), kInFlight, 0);
    head = load_le<uint16_t>(entry(head), kNextInBatch);
  }
  store_le<uint16_t>(bytes_, kUsedIndex, used_index);
  std::vector<std::pair<uint64_t, uint16_t>> found;
  for (uint16_t i = 0; i < size_; ++i)
    if (load_le<uint8_t>(entry(i), kInFlight) != 0)
      found.emplace_back(load_le<uint64_t>(entry(i), kCounter), i);
  std::sort(found.begin(), found.end());
  std::vector<uint16_t> heads;
  for (const auto& [counter, index] : found) {
    counter_ = counter + 1;
    heads.push_back(index);
  }
  return heads;
}

void InflightQueue::begin(uint16_t head) {
  store_le<uint64_t>(entry(head), kCounter, counter_++);
  in_this_order();
  store_le<uint8_t>(entry(head), kInFlight, 1);
  in_this_order();
}

void InflightQueue::before_used(uint16_t head) {
  store_le<uint16_t>(entry(head), kNextInBatch, load_le<uint16_t>(bytes_, kLastBatch));
  store_le<uint16_t>(bytes_, kLastBatch, head);
  in_this_order();
}

void InflightQueue::after_used(uint16_t head, uint16_t used_index) {
  in_this_order();
  store_le<uint8_t>(entry(head), kInFlight, 0);
  in_this_order();
  store_le<uint16_t>(bytes_, kUsedIndex, used_index);
}

OwnFd InflightRecord::create(uint16_t queues, uint16_t queue_size, InflightArea* area) {
  if (queues == 0 || queue_size == 0) invalid("record of requests for no queue");
  area->size = queue_bytes(queue_size) * queues;
  area->offset = 0;
  area->queues = queues;
  area->queue_size = queue_size;
  OwnFd file(::memfd_create("cairn-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file || ::ftruncate(file.get(), static_cast<off_t>(area->size)) != 0)
    throw Error::system(errno, "cannot make the record of requests");
  ::fcntl(file.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
  return file;
}

InflightRecord::InflightRecord(int file, const InflightArea& area) : area_(area) {
  const auto end = checked_add(area.offset, area.size);
  if (!end || area.queues == 0 || area.queue_size == 0 ||
      area.size < queue_bytes(area.queue_size) * area.queues)
    invalid("record of requests that is too small for its queues");
  mapping_ = SharedMapping(file, *end);
}

InflightQueue InflightRecord::queue(uint32_t index, uint32_t queue_size) const {
  if (index >= area_.queues || queue_size > area_.queue_size) return {};
  const uint64_t bytes = queue_bytes(area_.queue_size);
  return {mapping_.bytes().subspan(area_.offset + index * bytes, bytes),
          static_cast<uint16_t>(queue_size)};
}

}  // namespace cairn::vhost_user
