// Shows the disk as a node of copy-before-write in "file" keeps it. It cannot be written; what is
// discarded is not needed any more.

#include "block/capabilities/child_use.h"
#include "block/capabilities/moment.h"
#include "block/capabilities/opened_once.h"
#include "block/driver.h"
#include "block/permissions.h"
#include "filter/filter.h"

namespace cairn {
namespace {

class SnapshotAccessNode : public FilterNode, public ChildUse, public OpenedOnce {
 public:
  using Capabilities = CapabilityList<ChildUse, OpenedOnce>;

  SnapshotAccessNode(OpenContext& request, NodePtr file) : FilterNode(request, std::move(file)) {
    set_unbounded(false);
    take_moment();
  }

  // The disk of a moment is no business of who changes the disk of today.
  bool child_use(std::string_view, uint8_t& takes, uint8_t& shares) const override {
    takes = 0;
    shares = Permissions::kAll;
    return true;
  }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  bool take_child(std::string_view name, Node& child) override {
    leave_moment();
    const bool taken = FilterNode::take_child(name, child);
    take_moment();
    return taken;
  }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override {
    return moment().read_moment(offset, out);
  }
  Task<void> do_write(uint64_t, ByteSpan, WriteFlags) override {
    unsupported();
    co_return;
  }
  Task<void> do_write_zeroes(uint64_t, uint64_t, WriteFlags) override {
    unsupported();
    co_return;
  }
  Task<void> do_discard(uint64_t offset, uint64_t length) override {
    return moment().discard_moment(offset, length);
  }
  Task<void> do_flush() override { co_return; }
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override {
    return moment().moment_extent(offset, max);
  }
  Task<void> do_resize(ResizeRequest) override {
    throw Error(ErrorKind::kUnsupported, "Image format driver does not support resize");
    co_return;
  }
  Task<void> do_close() override {
    leave_moment();
    return FilterNode::do_close();
  }

 private:
  [[noreturn]] static void unsupported() {
    throw Error(ErrorKind::kUnsupported, "Operation not supported");
  }
  Moment& moment() const {
    if (moment_ == nullptr) unsupported();
    return *moment_;
  }
  void take_moment() {
    moment_ = below().as<Moment>();
    if (moment_ == nullptr) return;
    moment_->change_readers(1);
    set_length(moment_->moment_length());
  }
  void leave_moment() {
    if (moment_ != nullptr) moment_->change_readers(-1);
    moment_ = nullptr;
  }

  Moment* moment_ = nullptr;
};

class SnapshotAccessDriver : public Driver {
 public:
  SnapshotAccessDriver()
      : Driver({.name = "snapshot-access",
                .title = "the disk as copy-before-write keeps it",
                .kind = DriverKind::kFilter,
                .capabilities = SnapshotAccessNode::Capabilities::ids(),
                .verbatim = true}) {}
  bool shapes_disk(std::string_view) const override { return false; }
  Task<NodePtr> open(OpenContext& request) const override {
    NodePtr file = co_await request.open_file();
    co_return std::make_shared<SnapshotAccessNode>(request, std::move(file));
  }
};

}  // namespace

std::unique_ptr<Driver> make_snapshot_access_driver() {
  return std::make_unique<SnapshotAccessDriver>();
}

}  // namespace cairn
