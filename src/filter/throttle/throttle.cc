// Delays requests so that the nodes of one throttle group together keep to its limits (block/
// throttle_group.h).

#include "block/capabilities/delaying.h"
#include "block/driver.h"
#include "block/object_types.h"
#include "block/throttle_group.h"
#include "filter/filter.h"

namespace cairn {
namespace {

const OptionSchema kThrottleOptions = {
    {"throttle-group", OptionType::kString, "", "id of the group whose limits apply"},
};

class ThrottleNode : public FilterNode, public Delaying {
 public:
  using Capabilities = CapabilityList<Delaying>;
  ThrottleNode(OpenContext& request, NodePtr file, std::shared_ptr<ThrottleGroup> group)
      : FilterNode(request, std::move(file)), group_(std::move(group)) {}

  void hurry(bool on) override { group_->hurry(this, on); }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override {
    co_await group_->admit(this, false, out.size());
    co_await FilterNode::do_read(offset, out);
  }
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override {
    co_await group_->admit(this, true, in.size());
    co_await FilterNode::do_write(offset, in, flags);
  }
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override {
    co_await group_->admit(this, true, length);
    co_await FilterNode::do_write_zeroes(offset, length, flags);
  }
  Task<void> do_discard(uint64_t offset, uint64_t length) override {
    co_await group_->admit(this, true, length);
    co_await FilterNode::do_discard(offset, length);
  }

 private:
  std::shared_ptr<ThrottleGroup> group_;
};

class ThrottleDriver : public Driver {
 public:
  ThrottleDriver()
      : Driver({.name = "throttle",
                .title = "keeps requests to a rate",
                .kind = DriverKind::kFilter,
                .abilities = {.resize = true},
                .capabilities = ThrottleNode::Capabilities::ids(),
                .verbatim = true,
                .open_options = kThrottleOptions}) {}
  Task<NodePtr> open(OpenContext& request) const override {
    const auto id = request.options.string("throttle-group");
    if (!id) throw Error(ErrorKind::kInvalid, "Please specify a throttle group");
    std::shared_ptr<ThrottleGroup> group = find_throttle_group(request.context, *id);
    NodePtr file = co_await request.open_file();
    co_return std::make_shared<ThrottleNode>(request, std::move(file), std::move(group));
  }
};

}  // namespace

std::unique_ptr<Driver> make_throttle_driver() { return std::make_unique<ThrottleDriver>(); }

}  // namespace cairn
