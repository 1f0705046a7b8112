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

const std::vector<Sample> kSamples = {
    {.name = "dynamic", .options = "force_size=on", .crash = Sample::Crash::kRepaired},
    {.name = "geometry", .options = "subformat=dynamic", .rewrites = false, .exchanged = true},
    {.name = "fixed", .options = "subformat=fixed,force_size=on", .exchanged = true},
};

class VpcDriver : public FormatDriver<VpcNode> {
 public:
  VpcDriver()
      : FormatDriver({.name = "vpc",
                      .title = "VHD (-f vhd): Virtual PC, Hyper-V, Azure",
                      .endings = {"vhd", "avhd", "vpc"},
                      .page = "formats/vpc.md",
                      .abilities = {.create = true, .resize = true, .repair = true},
                      .extensions = {.check = true, .resize = true},
                      .open_options = kOpenOptions,
                      .create_options = vpc::creation_options(),
                      .samples = kSamples}) {}
  ProbeResult probe(const ProbeInput& input) const override {
    if (Footer::has_cookie(input.head)) return {.score = 100};
    return {.score = fixed_by_tail(input) ? 90 : 0, .extension = true};
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
