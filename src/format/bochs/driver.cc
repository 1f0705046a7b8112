#include "block/driver.h"

#include "block/open_format.h"
#include "format/bochs/node.h"

namespace cairn {

using namespace bochs;

namespace {

class BochsDriver : public Driver {
 public:
  BochsDriver()
      : Driver({.name = "bochs",
                .title = "growing disks and redologs of Bochs",
                .abilities = {.read_only = true},
                .capabilities = BochsNode::Capabilities::ids(),
                .check_beyond_qemu = true}) {}
  int probe(const ProbeInput& input) const override {
    return Header::recognises(input.head, input.beyond_qemu) ? 100 : 0;
  }
  Task<NodePtr> open(OpenContext& request) const override {
    return open_format<BochsNode>(request, *this);
  }
};

}  // namespace

std::unique_ptr<Driver> make_bochs_driver() { return std::make_unique<BochsDriver>(); }

}  // namespace cairn
