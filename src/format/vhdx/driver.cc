#include "format/vhdx/create.h"
#include "format/vhdx/node.h"
#include "format/vhdx/vhdx.h"

namespace cairn {

namespace {

class VhdxDriver : public Driver {
 public:
  std::string_view name() const override { return "vhdx"; }
  std::string_view title() const override { return "VHDX: Hyper-V, Windows"; }
  int probe(const ProbeInput& input) const override {
    const std::string_view signature = vhdx::kSignature;
    return input.length >= signature.size() &&
                   load_text(input.head, 0, signature.size()) == signature
               ? 100
               : 0;
  }
  Abilities abilities() const override {
    return {.create = true, .backing = true, .check = true, .repair = true, .resize = true};
  }
  const OptionSchema& create_options() const override { return vhdx::creation_options(); }
  std::vector<std::pair<std::string, std::string>> announce(const Options& options,
                                                            uint64_t size) const override {
    return vhdx::announced(options, size);
  }

  Task<NodePtr> open(OpenContext& request) const override {
    NodePtr file = co_await request.open_file();
    std::exception_ptr error;
    std::shared_ptr<VhdxNode> node;
    try {
      node = std::make_shared<VhdxNode>(request.context, *this, file);
      co_await node->load(request);
    } catch (...) {
      error = std::current_exception();
    }
    if (!error) co_return node;
    NodePtr parent;
    for (const Child& child : node ? node->children() : std::vector<Child>{})
      if (child.role == ChildRole::kBacking) parent = child.node;
    if (parent) co_await parent->close();
    co_await file->close();
    std::rethrow_exception(error);
  }

  Task<void> create(Context& context, CreateRequest request) const override {
    return vhdx::create(context, std::move(request));
  }
};

}  // namespace

std::unique_ptr<Driver> make_vhdx_driver() { return std::make_unique<VhdxDriver>(); }

}  // namespace cairn
