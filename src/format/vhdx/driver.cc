#include "block/driver.h"

#include "block/open_format.h"
#include "format/vhdx/create.h"
#include "format/vhdx/node.h"

namespace cairn {

namespace {

const std::vector<Sample> kSamples = {
    {.name = "dynamic",
     .options = "block_size=1M",
     .crash = Sample::Crash::kClean,
     .exchanged = true},
    {.name = "fixed", .options = "subformat=fixed,block_size=2M", .exchanged = true},
};

class VhdxDriver : public FormatDriver<VhdxNode> {
 public:
  VhdxDriver()
      : FormatDriver({.name = "vhdx",
                      .title = "VHDX: Hyper-V, Windows",
                      .endings = {"vhdx", "avhdx"},
                      .page = "formats/vhdx.md",
                      .abilities = {.create = true, .resize = true, .repair = true},
                      .extensions = {.resize = true, .facts = true},
                      .create_options = vhdx::creation_options(),
                      .samples = kSamples}) {}
  ProbeResult probe(const ProbeInput& input) const override {
    const std::string_view signature = vhdx::kSignature;
    return {.score = input.length >= signature.size() &&
                             load_text(input.head, 0, signature.size()) == signature
                         ? 100
                         : 0};
  }

  Task<void> create(Context& context, CreateRequest request) const override {
    return vhdx::create(context, std::move(request));
  }
};

}  // namespace

std::unique_ptr<Driver> make_vhdx_driver() { return std::make_unique<VhdxDriver>(); }

}  // namespace cairn
