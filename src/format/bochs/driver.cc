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
                .endings = {"bochs"},
                .page = "formats/bochs.md",
                .abilities = {.read_only = true},
                .capabilities = BochsNode::Capabilities::ids(),
                .extensions = {.check = true}}) {}
  ProbeResult probe(const ProbeInput& input) const override {
    return {.score = Header::recognises(input.head, true) ? 100 : 0,
            .extension = !Header::recognises(input.head, false)};
  }
  Task<NodePtr> open(OpenContext& request) const override {
    return open_format<BochsNode>(request, *this);
  }
};

}  // namespace

std::unique_ptr<Driver> make_bochs_driver() { return std::make_unique<BochsDriver>(); }

}  // namespace cairn
