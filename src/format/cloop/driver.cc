#include "block/driver.h"

#include "block/open_format.h"
#include "format/cloop/node.h"

namespace cairn {

using namespace cloop;

namespace {

class CloopDriver : public Driver {
 public:
  CloopDriver()
      : Driver({.name = "cloop",
                .title = "Linux compressed loop images",
                .abilities = {.read_only = true}}) {}

  // QEMU knows one preamble; those of other versions, of FreeBSD, and at the end are known beside.
  int probe(const ProbeInput& input) const override {
    if (is_known_to_qemu(input.head)) return 2;
    if (!input.beyond_qemu) return 0;
    if (version_of(input.head)) return 2;
    if (input.tail.size() < kHeaderBytes) return 0;
    return version_of(input.tail.last(kHeaderBytes)) == Version::kMixed ? 2 : 0;
  }

  Task<NodePtr> open(OpenContext& request) const override {
    return open_format<CloopNode>(request, *this);
  }
};

}  // namespace

std::unique_ptr<Driver> make_cloop_driver() { return std::make_unique<CloopDriver>(); }

}  // namespace cairn
