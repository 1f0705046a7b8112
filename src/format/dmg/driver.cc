#include "block/driver.h"

#include "block/open_format.h"
#include "format/dmg/node.h"

namespace cairn {

using namespace dmg;

namespace {

class DmgDriver : public FormatDriver<DmgNode> {
 public:
  DmgDriver()
      : FormatDriver({.name = "dmg",
                      .title = "Apple disk images",
                      .endings = {"dmg"},
                      .page = "formats/dmg.md",
                      .abilities = {.read_only = true}}) {}

  // By the name, as QEMU does, and by the trailer.
  ProbeResult probe(const ProbeInput& input) const override {
    if (!input.tail.empty() && load_be<uint32_t>(input.tail, 0) == kTrailerMagic)
      return {.score = 100, .extension = true};
    return {.score = input.filename.size() > 4 && input.filename.ends_with(".dmg") ? 2 : 0};
  }
};

}  // namespace

std::unique_ptr<Driver> make_dmg_driver() { return std::make_unique<DmgDriver>(); }

}  // namespace cairn
