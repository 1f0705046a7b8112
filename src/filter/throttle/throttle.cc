// Delays requests so that the nodes of one throttle group together keep to its limits (block/
// throttle_group.h).

#include "block/capabilities/delaying.h"
#include "block/driver.h"
#include "block/object_types.h"
#include "block/throttle_group.h"
#include "filter/filter.h"

namespace cairn {
namespace {

constexpr uint64_t kMostWeight = 1000;

const OptionSchema kThrottleOptions = {
    {"throttle-group", OptionType::kString, "", "id of the group whose limits apply"},
    {"weight", OptionType::kNumber, "1", "its share where the group shares bytes, 1 to 1000"},
};

class ThrottleNode : public FilterNode, public Delaying {
 public:
  using Capabilities = CapabilityList<Delaying>;
  ThrottleNode(OpenContext& request, NodePtr file, std::shared_ptr<ThrottleGroup> group,
               unsigned weight)
      : FilterNode(request, std::move(file)), group_(std::move(group)), weight_(weight) {}
  ~ThrottleNode() override { group_->forget(this); }

  void hurry(bool on) override { group_->hurry(this, on); }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override {
    co_await group_->admit(this, false, out.size(), weight_);
    co_await FilterNode::do_read(offset, out);
  }
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override {
    co_await group_->admit(this, true, in.size(), weight_);
    co_await FilterNode::do_write(offset, in, flags);
  }
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override {
    co_await group_->admit(this, true, length, weight_);
    co_await FilterNode::do_write_zeroes(offset, length, flags);
  }
  Task<void> do_discard(uint64_t offset, uint64_t length) override {
    if (group_->policy().count_discards) co_await group_->admit(this, true, length, weight_);
    co_await FilterNode::do_discard(offset, length);
  }
  Task<void> do_close() override {
    std::exception_ptr error;
    try {
      co_await FilterNode::do_close();
    } catch (...) {
      error = std::current_exception();
    }
    co_await group_->settle();
    if (error) std::rethrow_exception(error);
  }
  Task<void> do_flush() override {
    if (group_->policy().count_flushes) co_await group_->admit(this, true, 0, weight_);
    co_await FilterNode::do_flush();
  }

 private:
  std::shared_ptr<ThrottleGroup> group_;
  const unsigned weight_;
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
    const uint64_t weight = request.options.number("weight").value_or(1);
    if (weight == 0 || weight > kMostWeight)
      throw Error(ErrorKind::kInvalid, "Parameter 'weight' expects a number from 1 to 1000");
    NodePtr file = co_await request.open_file();
    co_return std::make_shared<ThrottleNode>(request, std::move(file), std::move(group),
                                             static_cast<unsigned>(weight));
  }
};

}  // namespace

std::unique_ptr<Driver> make_throttle_driver() { return std::make_unique<ThrottleDriver>(); }

}  // namespace cairn
