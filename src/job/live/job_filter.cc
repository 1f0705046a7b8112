#include "job/live/job_filter.h"

namespace cairn::live {
namespace {

// The drivers of filters that only jobs can make.
class JobFilterDriver : public Driver {
 public:
  explicit JobFilterDriver(std::string_view name)
      : Driver({.name = name,
                .title = "what a job puts above a disk",
                .kind = DriverKind::kFilter,
                .verbatim = true}) {}
  Task<NodePtr> open(OpenContext&) const override {
    throw Error(ErrorKind::kUnsupported, "Only jobs make nodes of '" + std::string(name()) + "'");
  }
};

const Driver& driver_of(std::string_view name) {
  static const JobFilterDriver kCopyOnRead("copy-on-read");
  static const JobFilterDriver kCopyBeforeWrite("copy-before-write");
  static const JobFilterDriver kMirror("mirror_top");
  static const JobFilterDriver kCommit("commit_top");
  for (const Driver* driver : {&kCopyOnRead, &kCopyBeforeWrite, &kMirror})
    if (static_cast<const Driver*>(driver)->name() == name) return *driver;
  return kCommit;
}

}  // namespace

JobFilter::JobFilter(std::string_view driver_name, NodePtr below, std::string child_name)
    : Node(below->context(), driver_of(driver_name)),
      below_(below),
      child_name_(std::move(child_name)) {
  mutable_limits() = below->limits();
  set_length(below->length());
  set_read_only(below->read_only());
  set_filename(below->filename());
  set_filtered(below.get());
  set_splits_zeroes();
  add_child(child_name_, std::move(below), ChildRole::kFiltered);
}

void* JobFilter::find_capability(CapabilityId id) {
  return CapabilityList<ChildUse>::find(this, id);
}

bool JobFilter::child_use(std::string_view, uint8_t&, uint8_t&) const { return false; }

bool JobFilter::take_child(std::string_view name, Node& child) {
  if (name == child_name_) below_ = child.shared_from_this();
  return true;
}

Task<void> JobFilter::do_read(uint64_t offset, MutableByteSpan out) {
  return below_->read(offset, out);
}

Task<void> JobFilter::do_write(uint64_t offset, ByteSpan in, WriteFlags flags) {
  return below_->write(offset, in, flags);
}

Task<void> JobFilter::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  return below_->write_zeroes(offset, length, flags);
}

Task<void> JobFilter::do_discard(uint64_t offset, uint64_t length) {
  return below_->discard(offset, length);
}

Task<void> JobFilter::do_flush() { return below_->flush(); }

Task<Extent> JobFilter::do_extent(uint64_t offset, uint64_t max) {
  return below_->layer_extent_at(offset, max);
}

Task<void> StreamFilter::do_write(uint64_t offset, ByteSpan in, WriteFlags flags) {
  RangeLock::Guard guard;
  co_await ranges().acquire(guard, offset, in.size(), false);
  co_await JobFilter::do_write(offset, in, flags);
}

Task<void> StreamFilter::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  RangeLock::Guard guard;
  co_await ranges().acquire(guard, offset, length, false);
  co_await JobFilter::do_write_zeroes(offset, length, flags);
}

Task<void> StreamFilter::do_discard(uint64_t offset, uint64_t length) {
  RangeLock::Guard guard;
  co_await ranges().acquire(guard, offset, length, false);
  co_await JobFilter::do_discard(offset, length);
}

}  // namespace cairn::live
