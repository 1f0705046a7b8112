#include "block/driver.h"

#include "block/open_format.h"
#include "format/bochs/node.h"

namespace cairn {

using namespace bochs;

namespace {

class BochsDriver : public Driver {
 public:
  std::string_view name() const override { return "bochs"; }
  std::string_view title() const override { return "growing disks and redologs of Bochs"; }
  int probe(const ProbeInput& input) const override {
    return Header::recognises(input.head, input.beyond_qemu) ? 100 : 0;
  }
  Abilities abilities() const override {
    return {.backing = true, .check = true, .check_beyond_qemu = true, .read_only = true};
  }
  Task<NodePtr> open(OpenContext& request) const override {
    return open_format<BochsNode>(request, *this);
  }
};

}  // namespace

std::unique_ptr<Driver> make_bochs_driver() { return std::make_unique<BochsDriver>(); }

}  // namespace cairn
