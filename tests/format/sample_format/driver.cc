#include "block/driver.h"

#include "block/open_format.h"
#include "format/sample/node.h"

namespace cairn {

using namespace sample;

namespace {

const OptionSchema kCreateOptions = {
    {"size", OptionType::kSize, "", "Virtual disk size"},
};

class SampleDriver : public Driver {
 public:
  SampleDriver()
      : Driver({.name = "sample",
                .title = "the example of a format",
                .endings = {"sample"},
                .page = "formats/sample.md",
                .abilities = {.create = true, .resize = true, .repair = true},
                .capabilities = SampleNode::Capabilities::ids(),
                .create_options = kCreateOptions,
                .samples = {{.name = "default"}}}) {}

  // QEMU's tools would take an image for a raw disk.
  ProbeResult probe(const ProbeInput& input) const override {
    return {.score = Header::recognises(input.head) ? 100 : 0, .extension = true};
  }

  Task<NodePtr> open(OpenContext& request) const override {
    return open_format<SampleNode>(request, *this);
  }

  Task<void> create(Context&, CreateRequest request) const override {
    const Header header{.size = request.size};
    header.validate();
    std::vector<std::byte> sector(kHeaderBytes);
    header.encode(sector);
    // The table is all zeroes, as a longer file is.
    co_await request.file->resize({.length = kDataOffset});
    co_await request.file->write(0, sector);
  }
};

}  // namespace

std::unique_ptr<Driver> make_sample_driver() { return std::make_unique<SampleDriver>(); }

}  // namespace cairn
