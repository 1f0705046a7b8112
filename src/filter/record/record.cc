#include "filter/record/record.h"

namespace cairn {

std::vector<RecordedEvent> RecordNode::events() const {
  const std::lock_guard lock(mutex_);
  return events_;
}

size_t RecordNode::count() const {
  const std::lock_guard lock(mutex_);
  return events_.size();
}

void RecordNode::add(RecordedEvent event) {
  const std::lock_guard lock(mutex_);
  event.when = std::chrono::steady_clock::now();
  events_.push_back(std::move(event));
}

Task<void> RecordNode::do_write(uint64_t offset, ByteSpan in, WriteFlags flags) {
  co_await FilterNode::do_write(offset, in, flags);
  add({.kind = RecordedEvent::Kind::kWrite,
       .offset = offset,
       .length = in.size(),
       .bytes = std::vector<std::byte>(in.begin(), in.end())});
}

Task<void> RecordNode::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  co_await FilterNode::do_write_zeroes(offset, length, flags);
  add({.kind = RecordedEvent::Kind::kZero, .offset = offset, .length = length, .bytes = {}});
}

Task<void> RecordNode::do_discard(uint64_t offset, uint64_t length) {
  co_await FilterNode::do_discard(offset, length);
  add({.kind = RecordedEvent::Kind::kDiscard, .offset = offset, .length = length, .bytes = {}});
}

Task<void> RecordNode::do_flush() {
  co_await FilterNode::do_flush();
  add({.kind = RecordedEvent::Kind::kFlush, .bytes = {}});
}

Task<void> RecordNode::do_resize(ResizeRequest request) {
  co_await FilterNode::do_resize(request);
  add({.kind = RecordedEvent::Kind::kResize,
       .offset = request.length,
       .bytes = {},
       .exact = request.exact});
}

namespace {

class RecordDriver : public Driver {
 public:
  RecordDriver()
      : Driver({.name = "record",
                .title = "keeps a list of what is written",
                .kind = DriverKind::kFilter,
                .abilities = {.resize = true},
                .verbatim = true}) {}
  Task<NodePtr> open(OpenContext& request) const override {
    NodePtr file = co_await request.open_file();
    co_return std::make_shared<RecordNode>(request, std::move(file));
  }
};

}  // namespace

std::unique_ptr<Driver> make_record_driver() { return std::make_unique<RecordDriver>(); }

}  // namespace cairn
