#include "block/driver.h"

#include "block/open_format.h"
#include "format/split/node.h"
#include "format/split/pieces.h"

namespace cairn {
namespace {

class SplitDriver : public FormatDriver<SplitNode> {
 public:
  SplitDriver()
      : FormatDriver({.name = "split",
                      .title = "raw disks in numbered pieces (.001, .002)",
                      .page = "formats/split.md"}) {}
  ProbeResult probe(const ProbeInput& input) const override {
    // Only what no other format knows is taken for a piece.
    return {.score = split::is_piece(input.filename) ? 2 : 0, .extension = true};
  }
};

}  // namespace

std::unique_ptr<Driver> make_split_driver() { return std::make_unique<SplitDriver>(); }

}  // namespace cairn
