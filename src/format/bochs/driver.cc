#include "block/driver.h"

#include "block/open_format.h"
#include "format/bochs/node.h"

namespace cairn {

using namespace bochs;

namespace {

class BochsDriver : public FormatDriver<BochsNode> {
 public:
  BochsDriver()
      : FormatDriver({.name = "bochs",
                      .title = "growing disks and redologs of Bochs",
                      .endings = {"bochs"},
                      .page = "formats/bochs.md",
                      .abilities = {.read_only = true},
                      .extensions = {.check = true}}) {}
  ProbeResult probe(const ProbeInput& input) const override {
    return {.score = Header::recognises(input.head, true) ? 100 : 0,
            .extension = !Header::recognises(input.head, false)};
  }
};

}  // namespace

std::unique_ptr<Driver> make_bochs_driver() { return std::make_unique<BochsDriver>(); }

}  // namespace cairn
