#include "block/driver.h"

#include "block/open_format.h"
#include "format/sample/node.h"

namespace cairn {

using namespace sample;

namespace {

class SampleDriver : public FormatDriver<SampleNode> {
 public:
  SampleDriver()
      : FormatDriver({.name = "sample",
                      .title = "the example of a format",
                      .endings = {"sample"},
                      .page = "formats/sample.md",
                      .abilities = {.create = true, .resize = true, .repair = true},
                      .create_options = {{"size", OptionType::kSize, "", "Virtual disk size"}},
                      .samples = {{.name = "default"}}}) {}

  // QEMU's tools would take an image for a raw disk.
  ProbeResult probe(const ProbeInput& input) const override {
    return {.score = Header::recognises(input.head) ? 100 : 0, .extension = true};
  }

  Task<void> create(Context&, CreateRequest request) const override {
    const std::vector<std::byte> sector = Header{.size = request.size}.encode();
    // The table is all zeroes, as a longer file is.
    co_await request.file->resize({.length = kDataOffset});
    co_await request.file->write(0, sector);
  }
};

}  // namespace

std::unique_ptr<Driver> make_sample_driver() { return std::make_unique<SampleDriver>(); }

}  // namespace cairn
