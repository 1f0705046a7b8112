// A side of COLO replication that nothing has begun: no command of QEMU's storage daemon begins it.
// Until then its data can neither be read nor be written; where there is none is known.

#include <cerrno>

#include "base/error.h"
#include "block/capabilities/opened_once.h"
#include "block/driver.h"
#include "filter/filter.h"

namespace cairn {
namespace {

const OptionSchema kReplicationOptions = {
    {"mode", OptionType::kString, "", "primary or secondary"},
    {"top-id", OptionType::kString, "", "node name of the top of the secondary side"},
};

class ReplicationNode : public FilterNode, public OpenedOnce {
 public:
  using Capabilities = CapabilityList<OpenedOnce>;

  ReplicationNode(OpenContext& request, NodePtr file) : FilterNode(request, std::move(file)) {
    set_unbounded(false);
  }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t, MutableByteSpan) override { return refuse(); }
  Task<void> do_write(uint64_t, ByteSpan, WriteFlags) override { return refuse(); }
  Task<void> do_write_zeroes(uint64_t, uint64_t, WriteFlags) override { return refuse(); }
  // It is a hint, from which nothing has to follow.
  Task<void> do_discard(uint64_t, uint64_t) override { co_return; }

 private:
  static Task<void> refuse() {
    throw Error::system(EIO);
    co_return;
  }
};

void check_options(const OpenContext& request) {
  const auto mode = request.options.string("mode");
  const auto top = request.options.string("top-id");
  if (!mode) invalid("Missing the option mode");
  if (*mode == "primary") {
    if (top) invalid("The primary side does not support option top-id");
  } else if (*mode == "secondary") {
    if (!top) invalid("Missing the option top-id");
  } else {
    invalid("The option mode's value should be primary or secondary");
  }
}

class ReplicationDriver : public Driver {
 public:
  ReplicationDriver()
      : Driver({.name = "replication",
                .title = "one side of COLO replication, not begun",
                .kind = DriverKind::kFilter,
                .capabilities = ReplicationNode::Capabilities::ids(),
                .verbatim = true,
                .open_options = kReplicationOptions}) {}
  Task<NodePtr> open(OpenContext& request) const override {
    check_options(request);
    NodePtr file = co_await request.open_file();
    co_return std::make_shared<ReplicationNode>(request, std::move(file));
  }
};

}  // namespace

std::unique_ptr<Driver> make_replication_driver() { return std::make_unique<ReplicationDriver>(); }

}  // namespace cairn
