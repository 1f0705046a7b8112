#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <memory>

#include "base/base64.h"
#include "base/value.h"
#include "block/context.h"
#include "block/open.h"
#include "block/takes_back.h"
#include "protocol/driver_options.h"
#include "protocol/rbd/library_call.h"
#include "protocol/rbd/location.h"
#include "protocol/rbd/node.h"

namespace cairn {
namespace {

using namespace rbd;

const OptionSchema kOpenOptions = {
    {"pool", OptionType::kString, "", "pool of the image"},
    {"namespace", OptionType::kString, "", "namespace in the pool"},
    {"image", OptionType::kString, "", "name of the image"},
    {"snapshot", OptionType::kString, "", "the image as it was at this snapshot, read-only"},
    {"conf", OptionType::kString, "", "configuration of the cluster, instead of the usual file"},
    {"user", OptionType::kString, "", "who connects, without \"client.\""},
    {"server.host", OptionType::kString, "", "host of a monitor (server.0.host, …)"},
    {"server.port", OptionType::kString, "", "its port"},
    {"auth-client-required", OptionType::kString, "",
     "kinds of authentication: cephx or none (auth-client-required.0, …)"},
    {"key-secret", OptionType::kString, "", "ID of a secret that holds the user's key"},
    {"password-secret", OptionType::kString, "", "the same as key-secret"},
    {"encrypt.format", OptionType::kString, "", "what librbd encrypts with: luks or luks2"},
    {"encrypt.key-secret", OptionType::kString, "", "ID of a secret that holds the passphrase"},
    {"lock", OptionType::kString, "auto",
     "auto: no other client may write while the image is open for writing; off", true},
    {"timeout", OptionType::kNumber, "60", "seconds without an answer; 0: no limit", true},
};
const OptionSchema kCreateOptions = {
    {"cluster_size", OptionType::kSize, "", "RBD object size"},
    {"encrypt.cipher-alg", OptionType::kString, "",
     "Name of encryption cipher algorithm (allowed values: aes-128, aes-256)"},
    {"encrypt.format", OptionType::kString, "",
     "Encrypt the image, format choices: 'luks', 'luks2'"},
    {"encrypt.key-secret", OptionType::kString, "", "ID of secret providing LUKS passphrase"},
    {"password-secret", OptionType::kString, "", "ID of secret providing the password"},
    {"size", OptionType::kSize, "", "Virtual disk size"},
};

// Settings that a name gives, as one text.
constexpr std::string_view kSettings = "=keyvalue-pairs";
constexpr std::string_view kOfName[] = {"pool", "namespace", "image", "snapshot"};
// What the name of a disk shows; never a key.
constexpr std::string_view kShown[] = {"pool", "namespace", "image",      "snapshot",
                                       "conf", "user",      "key-secret", "password-secret"};
constexpr std::string_view kShownTrees[] = {"server.", "auth-client-required."};

void add_name(std::string_view filename, Options& options) {
  for (const std::string_view key : kOfName)
    if (options.has(key))
      invalid("Option '" + std::string(key) + "' cannot be used with a file name");
  const Location location = parse_name(filename);
  options.set("pool", location.pool);
  options.set("image", location.image);
  options.set("namespace", location.name_space);
  if (location.snapshot) options.set("snapshot", *location.snapshot);
  if (location.conf && !options.has("conf")) options.set("conf", *location.conf);
  if (location.user && !options.has("user")) options.set("user", *location.user);
  if (!location.settings.empty()) options.set(kSettings, join_settings(location.settings));
}

std::string base64_of(std::string_view bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    const size_t count = std::min<size_t>(3, bytes.size() - i);
    for (size_t j = 0; j < 3; ++j)
      group = group << 8 | (j < count ? static_cast<unsigned char>(bytes[i + j]) : 0u);
    for (size_t j = 0; j < 4; ++j) text += j <= count ? kDigits[group >> (18 - 6 * j) & 63] : '=';
  }
  return text;
}

// A key as Ceph writes it: 28 bytes in base64. A secret may hold either form.
std::string key_of(const std::string& secret) {
  constexpr size_t kKeyBytes = 28;
  std::string text = secret;
  while (!text.empty() && text.back() == '\n') text.pop_back();
  const auto bytes = decode_base64(text);
  return bytes && bytes->size() == kKeyBytes ? text : base64_of(secret);
}

// "HOST:PORT;…"
std::string monitors_of(Options& options) {
  Options servers = options.take_tree("server");
  std::string result;
  for (unsigned i = 0; !servers.empty(); ++i) {
    const std::string index = std::to_string(i);
    Options server = servers.take_tree(index);
    const auto host = server.string("host");
    const auto port = server.string("port");
    for (const char* part : {"host", "port"})
      if (!server.has(part))
        invalid(fmt::format("Parameter 'server.{}.{}' is missing", index, part));
    const auto unused = server.unused();
    if (!unused.empty())
      invalid(fmt::format("Parameter 'server.{}.{}' is unexpected", index, unused[0]));
    const bool bare_v6 = host->find(':') != std::string::npos && host->front() != '[';
    result +=
        fmt::format("{}{}:{}", i == 0 ? "" : ";", (bare_v6 ? "[" + *host + "]" : *host), *port);
  }
  return result;
}

std::string auth_of(Options& options) {
  const Options words = options.take_tree("auth-client-required");
  std::string result;
  for (const auto& [index, value] : words.items()) {
    const std::string word = words.string(index).value_or("");
    if (word != "cephx" && word != "none")
      invalid("Parameter 'auth-client-required' does not accept value '" + word + "'");
    result += (result.empty() ? "" : ";") + word;
  }
  return result;
}

std::optional<Encryption> encryption_of(const Context& context, const Options& options) {
  const auto format = options.string("encrypt.format");
  const auto cipher = options.string("encrypt.cipher-alg");
  if (!format) return std::nullopt;
  Encryption result;
  if (*format == "luks2") {
    result.format = RBD_ENCRYPTION_FORMAT_LUKS2;
  } else if (*format == "luks-any") {
    throw Error(ErrorKind::kUnsupported, "the encryption format luks-any is not supported")
        .hint("Say which one it is: luks or luks2.");
  } else if (*format != "luks") {
    invalid("Parameter 'format' does not accept value '" + *format + "'");
  }
  if (cipher == "aes-128")
    result.algorithm = RBD_ENCRYPTION_ALGORITHM_AES128;
  else if (cipher && *cipher != "aes-256")
    throw Error(ErrorKind::kUnsupported, "unknown encryption algorithm: " + *cipher);
  if (!options.has("encrypt.key-secret")) invalid("Parameter 'encrypt.key-secret' is missing");
  result.passphrase = secret_option(context, options, "encrypt.key-secret");
  return result;
}

Access access_of(Context& context, Options& options, bool cached) {
  Access access;
  access.conf = options.string("conf");
  access.user = options.string("user").value_or("");
  access.settings = split_settings(options.string(kSettings).value_or(""));
  for (const Setting& setting : access.settings)
    if (setting.first == "key" && context.profile.explanations)
      context.warn("the name of the image holds a key, which others can see: use key-secret");
  access.monitors = monitors_of(options);
  access.auth = auth_of(options);
  const char* const secret = options.has("key-secret") ? "key-secret" : "password-secret";
  if (options.has(secret)) access.key = key_of(secret_option(context, options, secret));
  access.cached = cached;
  access.timeout = bounded_option(options, "timeout", 0, 100'000, 60);
  access.explains = context.profile.explanations;
  return access;
}

Target target_of(Context& context, Options& options, bool cached) {
  Target target;
  const auto pool = options.string("pool");
  const auto image = options.string("image");
  if (!pool) invalid("Parameter 'pool' is missing");
  if (!image) invalid("Parameter 'image' is missing");
  target.pool = *pool;
  target.image = *image;
  target.name_space = options.string("namespace").value_or("");
  target.snapshot = options.string("snapshot");
  target.access = access_of(context, options, cached);
  return target;
}

std::string shown_name(const Profile& profile, const Options& options) {
  const auto shown = [](const std::string& key) {
    return std::find(std::begin(kShown), std::end(kShown), key) != std::end(kShown) ||
           std::any_of(std::begin(kShownTrees), std::end(kShownTrees),
                       [&](std::string_view tree) { return key.starts_with(tree); });
  };
  Value tree = Value::object();
  tree.set("driver", "rbd");
  for (const auto& [key, value] : options.items())
    if (shown(key)) tree.set(key, value);
  return "json:" + tree.compact(profile.json_order);
}

// The power of two of the objects' size that creation asks for; 0: none.
int order_of(const Options& options) {
  const uint64_t bytes = options.size("cluster_size").value_or(0);
  if (bytes == 0) return 0;
  if (!std::has_single_bit(bytes)) invalid("obj size needs to be power of 2");
  constexpr uint64_t kLeastObjectBytes = 4096;
  if (bytes < kLeastObjectBytes) invalid("obj size too small");
  return std::countr_zero(bytes);
}

class RbdDriver : public Driver, public TakesBack {
 public:
  RbdDriver()
      : Driver({.name = "rbd",
                .title = "images of a Ceph cluster",
                .kind = DriverKind::kProtocol,
                .prefixes = {"rbd"},
                .abilities = {.create = true, .resize = true},
                .capabilities = RbdNode::Capabilities::ids(),
                .verbatim = true,
                .remote = true,
                .open_options = kOpenOptions,
                .create_options = kCreateOptions}) {}

  void parse_filename(std::string_view filename, Options& options) const override {
    add_name(filename, options);
  }

  Task<NodePtr> open(OpenContext& request) const override {
    Context& context = request.context;
    Options& options = request.options;
    if (const auto filename = options.string("filename")) {
      context.warn("RBD options encoded in the filename as keyvalue pairs is deprecated");
      options.erase("filename");
      add_name(*filename, options);
    }
    std::string shown = shown_name(context.profile, options);
    Target target = target_of(context, options, !request.flags.cache.direct);
    target.encryption = encryption_of(context, options);
    target.writable = request.flags.writable;
    if (target.snapshot && target.writable)
      throw Error(ErrorKind::kDenied, "rbd snapshots are read-only");
    const std::string lock =
        options.string("lock").value_or(context.profile.extensions ? "auto" : "off");
    if (lock != "auto" && lock != "off") invalid("The option 'lock' must be auto or off");
    target.lock = lock == "auto" && target.writable && !request.flags.force_share;
    auto node = std::make_shared<RbdNode>(context, *this, std::move(target), std::move(shown));
    co_await connect_or_close(*node);
    if (request.flags.metadata_only) co_await work_or_close(*node, node->learn_container());
    co_return node;
  }

  Task<void> create(Context& context, CreateRequest request) const override {
    Options options = request.options;
    if (request.location.empty())
      add_name(request.filename, options);
    else
      options.merge_missing(request.location);
    Target target = target_of(context, options, true);
    target.encryption = encryption_of(context, options);
    std::function<void()> work = [target, size = request.size, order = order_of(options)] {
      create_image(target, size, order);
    };
    co_await library_call(std::move(work), std::chrono::hours(24), context.cancel);
  }

  bool makes_only_new() const override { return true; }

  Task<void> take_back(Context& context, std::string filename, Options options) const override {
    add_name(filename, options);
    std::function<void()> work = [target = target_of(context, options, true)] {
      remove_image(target);
    };
    co_await library_call(std::move(work), std::chrono::hours(1), nullptr);
  }
};

}  // namespace

std::unique_ptr<Driver> make_rbd_driver() { return std::make_unique<RbdDriver>(); }

}  // namespace cairn
