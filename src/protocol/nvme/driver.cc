#include "block/driver.h"

#include <string>

#include "async/runtime.h"
#include "block/context.h"
#include "block/fixed_storage.h"
#include "block/open.h"
#include "protocol/driver_options.h"
#include "protocol/nvme/node.h"
#include "protocol/nvme/vfio.h"

namespace cairn {
namespace {

using namespace nvme;

constexpr std::string_view kScheme = "nvme://";
constexpr unsigned kUsualSeconds = 30, kMostSeconds = 3600;

const OptionSchema kOpenOptions = {
    {"device", OptionType::kString, "", "address of the controller: DOMAIN:BUS:SLOT.FUNCTION"},
    {"namespace", OptionType::kNumber, "1", "number of the namespace"},
    {"timeout", OptionType::kNumber, "30",
     "seconds after which the controller is reset when it does not answer", true},
};

struct DiskPlace {
  PciAddress device;
  uint32_t name_space = 1;

  std::string name() const {
    return std::string(kScheme) + device.text() + "/" + std::to_string(name_space);
  }
};

DiskPlace place_of(const Options& options) {
  const auto device = options.string("device");
  if (!device) invalid("'device' option is required");
  DiskPlace place{.device = PciAddress::parse(*device)};
  if (const auto number = options.string("namespace")) place.name_space = parse_namespace(*number);
  return place;
}

std::shared_ptr<NvmeNode> node_of(Context& context, const Driver& driver, const DiskPlace& place,
                                  const Options& options) {
  Controller::Settings settings;
  settings.timeout =
      std::chrono::seconds(bounded_option(options, "timeout", 1, kMostSeconds, kUsualSeconds));
  settings.cancel = context.cancel;
  settings.warn = [&context, name = place.name()](const std::string& line) {
    context.warn(name + ": " + line);
  };
  std::unique_ptr<Device> device =
      open_vfio(std::make_unique<VfioCalls>(), SystemPaths{}, place.device);
  return std::make_shared<NvmeNode>(context, driver, std::move(device), std::move(settings),
                                    place.name_space, place.name());
}

class NvmeDriver : public Driver {
 public:
  NvmeDriver()
      : Driver({.name = "nvme",
                .title = "disks of NVMe controllers that this process drives, by VFIO",
                .kind = DriverKind::kProtocol,
                .page = "nvme.md",
                .prefixes = {"nvme"},
                .abilities = {.create = true},
                .capabilities = NvmeNode::Capabilities::ids(),
                .extensions = {.facts = true},
                .verbatim = true,
                .fixed_size = true,
                .open_options = kOpenOptions}) {}

  void parse_filename(std::string_view filename, Options& options) const override {
    for (const char* key : {"device", "namespace"})
      if (options.has(key))
        invalid("Option '" + std::string(key) + "' cannot be used with a file name");
    if (!filename.starts_with(kScheme))
      invalid("'" + std::string(filename) + "' is no name of the form nvme://ADDRESS/NAMESPACE");
    const std::string_view rest = filename.substr(kScheme.size());
    const size_t slash = rest.find('/');
    options.set("device", std::string(rest.substr(0, slash)));
    const std::string_view number =
        slash == std::string_view::npos ? std::string_view() : rest.substr(slash + 1);
    options.set("namespace", number.empty() ? "1" : std::string(number));
  }

  Task<NodePtr> open(OpenContext& request) const override {
    const DiskPlace place = place_of(request.options);
    std::shared_ptr<NvmeNode> node;
    co_await run_blocking([&] { node = node_of(request.context, *this, place, request.options); });
    co_await connect_or_close(*node);
    if (request.flags.writable) co_await work_or_close(*node, check(*node));
    co_return node;
  }

  // A namespace cannot be made: it must be there and large enough.
  Task<void> create(Context& context, CreateRequest request) const override {
    Options options;
    parse_filename(request.filename, options);
    const DiskPlace place = place_of(options);
    std::shared_ptr<NvmeNode> node;
    co_await run_blocking([&] { node = node_of(context, *this, place, options); });
    co_await connect_or_close(*node);
    const uint64_t length = node->length();
    co_await node->close();
    if (length < request.size)
      throw too_small(context, ErrorKind::kInvalid, "Cannot grow NVMe devices", length,
                      request.size);
  }

 private:
  static Task<void> check(const NvmeNode& node) {
    node.check_protection();
    co_return;
  }
};

}  // namespace

std::unique_ptr<Driver> make_nvme_driver() { return std::make_unique<NvmeDriver>(); }

}  // namespace cairn
