#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <memory>

#include "base/value.h"
#include "block/context.h"
#include "block/fixed_storage.h"
#include "block/open.h"
#include "protocol/driver_options.h"
#include "protocol/iscsi/node.h"

namespace cairn {
namespace {

using namespace iscsi;

const OptionSchema kOpenOptions = {
    {"transport", OptionType::kString, "", "tcp, or iser for RDMA"},
    {"portal", OptionType::kString, "", "host of the target, with its port unless that is 3260"},
    {"target", OptionType::kString, "", "name of the target (iqn.…)"},
    {"lun", OptionType::kNumber, "0", "number of the logical unit"},
    {"user", OptionType::kString, "", "name to log in with (CHAP)"},
    {"password", OptionType::kString, "", "its password, deprecated"},
    {"password-secret", OptionType::kString, "", "ID of a secret that holds it"},
    {"initiator-name", OptionType::kString, "", "name of the initiator (iqn.…)"},
    {"header-digest", OptionType::kString, "none-crc32c",
     "checksums of headers: crc32c, none, crc32c-none or none-crc32c, best first"},
    {"timeout", OptionType::kNumber, "0", "seconds for a request; 0: no limit"},
    {"target-user", OptionType::kString, "", "name that the target must prove", true},
    {"target-password-secret", OptionType::kString, "", "ID of a secret with its password", true},
    {"sessions", OptionType::kNumber, "1", "how many logins share the work", true},
};

constexpr const char* kInitiator = "iqn.2008-11.org.linux-kvm";
constexpr std::string_view kOfName[] = {"transport", "portal", "target", "lun"};
// What the name of a disk shows; never a password.
constexpr std::string_view kShown[] = {"lun",
                                       "portal",
                                       "transport",
                                       "target",
                                       "user",
                                       "password-secret",
                                       "header-digest",
                                       "timeout",
                                       "initiator-name",
                                       "target-user",
                                       "target-password-secret"};

// The login is of a URL, or of the environment: a configuration file has precedence.
constexpr std::string_view kLoginOfUrl = "login-of-url";

// What a URL, and the environment, say. Throws "Failed to parse URL : URL".
void add_url(const std::string& url, Options& options) {
  const IscsiLibrary& library = IscsiLibrary::get();
  const std::unique_ptr<iscsi_context, decltype(library.iscsi_destroy_context)> context(
      library.iscsi_create_context(kInitiator), library.iscsi_destroy_context);
  const std::unique_ptr<iscsi_url, decltype(library.iscsi_destroy_url)> parsed(
      context ? library.iscsi_parse_full_url(context.get(), url.c_str()) : nullptr,
      library.iscsi_destroy_url);
  if (!parsed) invalid("Failed to parse URL : " + url);
  const auto set = [&](const char* key, const std::string& value) {
    if (!options.has(key)) options.set(key, value);
  };
  options.set("transport", parsed->transport == ISER_TRANSPORT ? "iser" : "tcp");
  options.set("portal", std::string(parsed->portal));
  options.set("target", std::string(parsed->target));
  options.set("lun", std::to_string(parsed->lun));
  if (parsed->user[0] != 0 && !options.has("user")) {
    set("user", parsed->user);
    options.set(kLoginOfUrl, "on");
    if (parsed->passwd[0] != 0 && !options.has("password-secret")) set("password", parsed->passwd);
  }
}

iscsi_header_digest digest_of(const std::string& text) {
  if (text == "none") return ISCSI_HEADER_DIGEST_NONE;
  if (text == "none-crc32c") return ISCSI_HEADER_DIGEST_NONE_CRC32C;
  if (text == "crc32c-none") return ISCSI_HEADER_DIGEST_CRC32C_NONE;
  if (text == "crc32c") return ISCSI_HEADER_DIGEST_CRC32C;
  invalid("Invalid header-digest setting : " + text);
}

// The section of a configuration file that is for TARGET; else the first one.
const Options* section_of(const Context& context, const std::string& target) {
  const Options* result = nullptr;
  for (const ConfigSection& each : context.configuration) {
    if (each.group != "iscsi") continue;
    if (each.id == target) return &each.values;
    if (result == nullptr) result = &each.values;
  }
  return result;
}

// Adds what a configuration file says and the options of the disk do not.
void add_section(const Context& context, const std::string& target, Options& options) {
  const bool login_of_url = options.has(kLoginOfUrl);
  options.erase(kLoginOfUrl);
  const Options* section = section_of(context, target);
  if (section == nullptr) return;
  // Halves of two logins make none.
  if (section->has("user") && (login_of_url || !options.has("user")))
    for (const char* key : {"user", "password", "password-secret"}) {
      options.erase(key);
      if (const auto value = section->string(key)) options.set(key, *value);
    }
  for (const char* key : {"initiator-name", "timeout", "header-digest"})
    if (auto value = section->string(key); value && !options.has(key)) {
      // Digests are written in capitals there.
      if (key == std::string_view("header-digest"))
        for (char& c : *value) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      options.set(key, *value);
    }
}

void add_login(Context& context, const Options& options, Target& target) {
  target.user = options.string("user").value_or("");
  const auto password = options.string("password");
  if (target.user.empty() && options.string("target-user").value_or("").empty()) return;
  if (password && options.has("password-secret"))
    invalid("'password' and 'password-secret' properties are mutually exclusive");
  target.password = password ? *password : secret_option(context, options, "password-secret");
  if (!target.user.empty() && !password && !options.has("password-secret"))
    invalid("CHAP username specified but no password was given");
  if (password)
    context.warn(
        "iSCSI block driver 'password' option is deprecated, use 'password-secret' instead");
  target.target_user = options.string("target-user").value_or("");
  target.target_password = secret_option(context, options, "target-password-secret");
}

Target target_of(Context& context, Options& options) {
  Target target;
  const auto transport = options.string("transport");
  const auto portal = options.string("portal");
  const auto name = options.string("target");
  if (!transport || !portal || !name) invalid("Need all of transport, portal and target options");
  if (*transport != "tcp" && *transport != "iser") invalid("Unknown transport: " + *transport);
  add_section(context, *name, options);
  target.iser = *transport == "iser";
  target.portal = *portal;
  target.name = *name;
  const uint64_t lun = options.number("lun").value_or(0);
  constexpr uint64_t kMostLuns = 0x3fff;
  if (lun > kMostLuns) invalid(fmt::format("LUN {} is larger than 16383", lun));
  target.lun = static_cast<int>(lun);
  add_login(context, options, target);
  target.initiator = options.string("initiator-name").value_or(kInitiator);
  target.digest = digest_of(options.string("header-digest").value_or("none-crc32c"));
  const uint64_t timeout = options.number("timeout").value_or(0);
  constexpr uint64_t kMostSeconds = 1'000'000;
  target.timeout = static_cast<unsigned>(std::min(timeout, kMostSeconds));
  target.sessions = bounded_option(options, "sessions", 1, 16, 1);
  target.explains = context.profile.explanations;
  return target;
}

std::string shown_name(const Profile& profile, std::string_view driver, const Options& options) {
  Value tree = Value::object();
  tree.set("driver", std::string(driver));
  for (const auto& [key, value] : options.items())
    if (std::find(std::begin(kShown), std::end(kShown), key) != std::end(kShown))
      tree.set(key, value);
  return "json:" + tree.compact(profile.json_order);
}

class IscsiDriver : public Driver {
 public:
  explicit IscsiDriver(std::string_view name)
      : Driver({.name = name,
                .title = name == "iser" ? "logical units of iSCSI targets, by RDMA"
                                        : "logical units of iSCSI targets",
                .kind = DriverKind::kProtocol,
                .prefixes = {name},
                .abilities = {.create = true},
                .capabilities = IscsiNode::Capabilities::ids(),
                .verbatim = true,
                .fixed_size = true,
                .remote = true,
                .open_options = kOpenOptions}) {}

  void parse_filename(std::string_view filename, Options& options) const override {
    for (const std::string_view key : kOfName)
      if (options.has(key))
        invalid("Option '" + std::string(key) + "' cannot be used with a file name");
    add_url(std::string(filename), options);
    if (name() == "iser") options.set("transport", "iser");
  }

  Task<NodePtr> open(OpenContext& request) const override {
    std::string shown = shown_name(request.context.profile, name(), request.options);
    auto node = std::make_shared<IscsiNode>(request.context, *this,
                                            target_of(request.context, request.options),
                                            request.flags.writable, std::move(shown));
    co_await connect_or_close(*node);
    co_return node;
  }

  // A unit cannot be made: it must be there and large enough.
  Task<void> create(Context& context, CreateRequest request) const override {
    Options options;
    parse_filename(request.filename, options);
    auto node = std::make_shared<IscsiNode>(context, *this, target_of(context, options), true,
                                            shown_name(context.profile, name(), options));
    co_await connect_or_close(*node);
    const uint64_t length = node->length();
    co_await node->close();
    if (length < request.size)
      throw too_small(context, ErrorKind::kInvalid, "Cannot grow iSCSI devices", length,
                      request.size);
  }
};

}  // namespace

std::unique_ptr<Driver> make_iscsi_driver() { return std::make_unique<IscsiDriver>("iscsi"); }
std::unique_ptr<Driver> make_iser_driver() { return std::make_unique<IscsiDriver>("iser"); }

}  // namespace cairn
