#include <algorithm>

#include "base/arith.h"
#include "base/value.h"
#include "block/context.h"
#include "block/open.h"
#include "block/takes_back.h"
#include "protocol/driver_options.h"
#include "protocol/gluster/node.h"
#include "protocol/server_driver.h"

namespace cairn {
namespace {

using namespace gluster;

const OptionSchema kOpenOptions = {
    {"volume", OptionType::kString, "", "name of the volume"},
    {"path", OptionType::kString, "", "file in the volume, from its root on"},
    {"server.0.type", OptionType::kString, "", "inet or unix; further servers are server.1, …"},
    {"server.0.host", OptionType::kString, "", "name or address of a server"},
    {"server.0.port", OptionType::kString, "", "its port, mostly 24007"},
    {"server.0.path", OptionType::kString, "", "of unix: the socket of the daemon"},
    {"debug", OptionType::kNumber, "4", "how much the library logs: 0 (nothing) to 9"},
    {"logfile", OptionType::kString, "-", "where it logs; -: the standard error"},
    {"timeout", OptionType::kNumber, "60", "seconds without an answer", true},
};

const OptionSchema kCreateOptions = {
    {"size", OptionType::kSize, "", "Virtual disk size"},
    {"preallocation", OptionType::kString, "",
     "Preallocation mode (allowed values: off, falloc, full)"},
    {"debug", OptionType::kNumber, "", "Gluster log level, valid range is 0-9"},
    {"logfile", OptionType::kString, "", "Logfile path of libgfapi"},
};

// What of the options does not shape the disk, and is not shown in its name.
constexpr std::string_view kNotShown[] = {"debug", "logfile", "timeout"};
constexpr uint64_t kMostDebug = 9;

Settings settings_of(const Options& options) {
  Settings settings;
  const auto log_file = options.string("logfile");
  const bool asked = log_file || options.has("debug");
  settings.debug = static_cast<int>(std::min(options.number("debug").value_or(4), kMostDebug));
  // Two lines for each connection would disturb people who did not ask for them.
  settings.log_file = log_file ? *log_file : asked ? "-" : "/dev/null";
  settings.timeout = std::chrono::seconds(bounded_option(options, "timeout", 1, 100'000, 60));
  return settings;
}

Preallocation preallocation_of(const Options& options) {
  const auto text = options.string("preallocation");
  if (!text || *text == "off") return Preallocation::kOff;
  if (*text == "falloc") return Preallocation::kFalloc;
  if (*text == "full") return Preallocation::kFull;
  invalid("invalid parameter value: " + *text);
}

std::string shown_name(const Profile& profile, const Options& options) {
  Value tree = Value::object();
  tree.set("driver", "gluster");
  for (const auto& [key, value] : options.items())
    if (std::find(std::begin(kNotShown), std::end(kNotShown), key) == std::end(kNotShown))
      tree.set(key, value);
  return "json:" + tree.compact(profile.json_order);
}

class GlusterDriver : public ServerDriver, public TakesBack {
 public:
  GlusterDriver()
      : ServerDriver({.name = "gluster",
                      .title = "files of GlusterFS volumes",
                      .prefixes = {"gluster", "gluster+tcp", "gluster+unix", "gluster+rdma"},
                      .abilities = {.create = true, .resize = true},
                      .capabilities = GlusterNode::Capabilities::ids(),
                      .open_options = kOpenOptions,
                      .create_options = kCreateOptions},
                     {"volume", "path"}) {}

  Task<NodePtr> open(OpenContext& request) const override {
    Context& context = request.context;
    std::string name = take_name(context, request.options);
    if (name.empty()) name = shown_name(context.profile, request.options);
    const Location location = location_of(request.options);
    auto node = std::make_shared<GlusterNode>(context, *this, volumes_, location,
                                              settings_of(request.options), request.flags.writable,
                                              request.flags.cache.direct);
    node->set_name(std::move(name));
    co_await connect_or_close(*node);
    co_return node;
  }

  bool makes_only_new() const override { return false; }

  Task<void> take_back(Context& context, std::string filename, Options given) const override {
    Options options = named(filename);
    options.erase(kUri);
    const Location location = location_of(options);
    auto node = std::make_shared<GlusterNode>(context, *this, volumes_, location,
                                              settings_of(given), true, false);
    node->set_name(std::move(filename));
    co_await work_and_close(*node, node->remove());
  }

  Task<void> create(Context& context, CreateRequest request) const override {
    const Preallocation preallocation = preallocation_of(request.options);
    Options options = place_of(request);
    std::string name = take_name(context, options);
    const Location location = location_of(options);
    auto node = std::make_shared<GlusterNode>(context, *this, volumes_, location,
                                              settings_of(request.options), true, false);
    node->set_name(std::move(name));
    co_await work_and_close(*node, node->create(align_up(request.size, 512), preallocation));
  }

 protected:
  Options parse_name(std::string_view filename) const override {
    Options options;
    add_options(parse_uri(filename), options);
    options.set(kUri, std::string(filename));
    return options;
  }

 private:
  // The name from which the other options were made.
  static constexpr std::string_view kUri = "uri";

  static std::string take_name(Context& context, Options& options) {
    const std::string name = options.string(kUri).value_or("");
    options.erase(kUri);
    if (name.starts_with("gluster+rdma"))
      context.warn("rdma is no longer a transport of GlusterFS; tcp is used");
    return name;
  }

  // Nobody changes what a driver is by connecting.
  mutable Volumes volumes_;
};

}  // namespace

std::unique_ptr<Driver> make_gluster_driver() { return std::make_unique<GlusterDriver>(); }

}  // namespace cairn
