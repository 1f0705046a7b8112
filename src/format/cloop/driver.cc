#include "block/driver.h"

#include "block/open_format.h"
#include "format/cloop/node.h"

namespace cairn {

using namespace cloop;

namespace {

class CloopDriver : public FormatDriver<CloopNode> {
 public:
  CloopDriver()
      : FormatDriver({.name = "cloop",
                      .title = "Linux compressed loop images",
                      .endings = {"cloop"},
                      .page = "formats/cloop.md",
                      .abilities = {.read_only = true}}) {}

  // QEMU knows one preamble; those of other versions, of FreeBSD, and at the end are known too.
  ProbeResult probe(const ProbeInput& input) const override {
    if (is_known_to_qemu(input.head)) return {.score = 2};
    if (version_of(input.head)) return {.score = 2, .extension = true};
    const bool mixed = input.tail.size() >= kHeaderBytes &&
                       version_of(input.tail.last(kHeaderBytes)) == Version::kMixed;
    return {.score = mixed ? 2 : 0, .extension = true};
  }
};

}  // namespace

std::unique_ptr<Driver> make_cloop_driver() { return std::make_unique<CloopDriver>(); }

}  // namespace cairn
