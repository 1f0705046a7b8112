#include "block/driver.h"

#include "block/open_format.h"
#include "format/vpc/create.h"
#include "format/vpc/node.h"

namespace cairn {

using namespace vpc;

namespace {

const OptionSchema kOpenOptions = {
    {"force_size_calc", OptionType::kString, "",
     "which size counts: current_size or chs; by the creator otherwise"},
};
// Only a footer that fits the file to the byte makes it one: any other may be a guest's data.
bool fixed_by_tail(const ProbeInput& input) {
  if (!Footer::has_cookie(input.tail)) return false;
  try {
    const Footer footer = Footer::decode(input.tail);
    return footer.kind == Kind::kFixed && footer.current_size == input.length - kFooterBytes;
  } catch (const Error&) {
    return false;
  }
}

class VpcDriver : public Driver {
 public:
  VpcDriver()
      : Driver({.name = "vpc",
                .title = "VHD (-f vhd): Virtual PC, Hyper-V, Azure",
                .abilities = {.create = true, .resize = true, .repair = true},
                .capabilities = VpcNode::Capabilities::ids(),
                .check_beyond_qemu = true,
                .open_options = kOpenOptions,
                .create_options = vpc::creation_options()}) {}
  int probe(const ProbeInput& input) const override {
    if (Footer::has_cookie(input.head)) return 100;
    return fixed_by_tail(input) ? 90 : 0;
  }

  std::vector<std::pair<std::string, std::string>> announce(const Options& options,
                                                            uint64_t size) const override {
    std::vector<std::pair<std::string, std::string>> result{{"size", std::to_string(size)}};
    for (const char* key : {"backing_file", "backing_fmt", "subformat", "force_size"})
      if (const auto value = options.string(key)) result.emplace_back(key, *value);
    return result;
  }

  Task<NodePtr> open(OpenContext& request) const override {
    return open_format<VpcNode>(request, *this);
  }

  void check_creation(Context& context, const std::string&, uint64_t size,
                      const Options& options) const override {
    vpc::check_creation(context, options, size);
  }

  Task<void> create(Context& context, CreateRequest request) const override {
    return vpc::create(context, std::move(request));
  }
};

}  // namespace

std::unique_ptr<Driver> make_vpc_driver() { return std::make_unique<VpcDriver>(); }

}  // namespace cairn
