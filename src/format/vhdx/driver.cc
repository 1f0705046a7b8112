#include "block/driver.h"

#include "block/open_format.h"
#include "format/vhdx/create.h"
#include "format/vhdx/node.h"

namespace cairn {

namespace {

class VhdxDriver : public Driver {
 public:
  VhdxDriver()
      : Driver({.name = "vhdx",
                .title = "VHDX: Hyper-V, Windows",
                .abilities = {.create = true, .resize = true, .repair = true},
                .capabilities = VhdxNode::Capabilities::ids(),
                .create_options = vhdx::creation_options()}) {}
  int probe(const ProbeInput& input) const override {
    const std::string_view signature = vhdx::kSignature;
    return input.length >= signature.size() &&
                   load_text(input.head, 0, signature.size()) == signature
               ? 100
               : 0;
  }
  std::vector<std::pair<std::string, std::string>> announce(const Options& options,
                                                            uint64_t size) const override {
    return vhdx::announced(options, size);
  }

  Task<NodePtr> open(OpenContext& request) const override {
    return open_format<VhdxNode>(request, *this);
  }

  Task<void> create(Context& context, CreateRequest request) const override {
    return vhdx::create(context, std::move(request));
  }
};

}  // namespace

std::unique_ptr<Driver> make_vhdx_driver() { return std::make_unique<VhdxDriver>(); }

}  // namespace cairn
