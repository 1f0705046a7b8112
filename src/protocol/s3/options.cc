#include "protocol/s3/options.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <optional>

#include "base/own_fd.h"
#include "block/context.h"
#include "protocol/driver_options.h"
#include "protocol/s3/profile.h"

namespace cairn::s3 {
namespace {

constexpr char kRegion[] = "us-east-1";
constexpr size_t kMostFileBytes = 1 << 20;

// The settings of a profile of the user: those of ~/.aws/credentials count before ~/.aws/config.
struct UserProfile {
  std::map<std::string, std::string> values;
  bool found = false;

  std::string value(const std::string& key) const {
    const auto at = values.find(key);
    return at == values.end() ? std::string() : at->second;
  }
};

// Nothing where it cannot be read.
std::string content_of(const std::string& path) {
  const OwnFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  std::string text;
  if (!fd) return text;
  std::array<char, 4096> part{};
  for (ssize_t got = 0; text.size() < kMostFileBytes;
       text.append(part.data(), static_cast<size_t>(got)))
    if ((got = ::read(fd.get(), part.data(), part.size())) <= 0) break;
  return text;
}

UserProfile read_profile(const Context& context, const std::string& name) {
  UserProfile profile;
  if (context.home_directory.empty()) return profile;
  for (const char* file : {"credentials", "config"}) {
    std::string text = content_of(context.home_directory + "/.aws/" + file);
    profile.values.merge(parse_profile(text, name, &profile.found));
    wipe(text);
  }
  return profile;
}

// The first one that is not empty.
std::string first_of(std::initializer_list<std::string> texts) {
  for (const std::string& text : texts)
    if (!text.empty()) return text;
  return {};
}

// Whether the credentials are those of the machine's role: nothing else that says who asks counts.
bool wants_instance(const Options& options) {
  const std::string source = options.string("credentials").value_or("user");
  if (source == "user") return false;
  if (source != "instance") invalid("The option 'credentials' must be user or instance");
  for (const char* other :
       {"access-key-id", "secret-key-secret", "session-token-secret", "profile", "anonymous"})
    if (options.has(other))
      invalid("The options credentials=instance and " + std::string(other) + " exclude each other");
  return true;
}

Credentials credentials_of(const Context& context, const Options& options,
                           const UserProfile& profile, const std::string& name) {
  Credentials who;
  if (options.boolean("anonymous").value_or(false)) return who;
  const auto key = options.string("access-key-id");
  if (key.has_value() != options.has("secret-key-secret"))
    invalid("The options access-key-id and secret-key-secret belong together");
  if (key) {
    who.access_key = *key;
    who.secret_key = secret_option(context, options, "secret-key-secret");
    who.session_token = secret_option(context, options, "session-token-secret");
  } else if (!options.has("profile") && !variable(context, "AWS_ACCESS_KEY_ID").empty()) {
    who.access_key = variable(context, "AWS_ACCESS_KEY_ID");
    who.secret_key = variable(context, "AWS_SECRET_ACCESS_KEY");
    who.session_token = variable(context, "AWS_SESSION_TOKEN");
  } else {
    who.access_key = profile.value("aws_access_key_id");
    who.secret_key = profile.value("aws_secret_access_key");
    who.session_token = profile.value("aws_session_token");
  }
  if (who.access_key.empty() || who.secret_key.empty())
    throw Error(ErrorKind::kDenied, name + ": there are no credentials")
        .hint(
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, write them to ~/.aws/credentials, or "
            "give the options access-key-id and secret-key-secret. credentials=instance takes "
            "those of this machine's role, anonymous=on reads public objects.");
  for (const std::string* text : {&who.access_key, &who.session_token})
    if (text->find_first_of("\r\n") != std::string::npos)
      invalid("The access key and the session token must be one line each");
  return who;
}

std::string endpoint_of(const Context& context, const Options& options,
                        const UserProfile& profile) {
  std::string url =
      first_of({options.string("endpoint").value_or(""), variable(context, "AWS_ENDPOINT_URL"),
                profile.value("endpoint_url")});
  if (url.empty()) return url;
  while (url.ends_with('/')) url.pop_back();
  const size_t host = url.starts_with("http://") ? 7 : url.starts_with("https://") ? 8 : 0;
  if (host == 0 || url.size() == host ||
      url.find_first_of("@?# \t\r\n", host) != std::string::npos ||
      url.find('/', host) != std::string::npos)
    invalid("The endpoint must be http://HOST[:PORT] or https://HOST[:PORT]");
  // As libcurl sends it in the head, which is signed.
  const std::string_view usual = host == 7 ? ":80" : ":443";
  if (url.ends_with(usual)) url.resize(url.size() - usual.size());
  return url;
}

}  // namespace

std::string variable(const Context& context, std::string_view name) {
  const auto at = context.variables.find(name);
  return at == context.variables.end() ? std::string() : at->second;
}

const OptionSchema& object_options() {
  static const OptionSchema options = {
      {"endpoint", OptionType::kString, "", "http(s)://HOST[:PORT] of the service"},
      {"region", OptionType::kString, "", "where the bucket is (us-east-1)"},
      {"access-key-id", OptionType::kString, "", "who asks"},
      {"secret-key-secret", OptionType::kString, "", "ID of a secret that holds the secret key"},
      {"session-token-secret", OptionType::kString, "",
       "ID of a secret that holds the token of temporary keys"},
      {"profile", OptionType::kString, "", "section of ~/.aws/credentials"},
      {"credentials", OptionType::kString, "",
       "instance: those of the role that this machine or container has (user)"},
      {"anonymous", OptionType::kBool, "", "ask without credentials (off)"},
      {"connections", OptionType::kNumber, "",
       "how many connections are used at most (4; 8 for reads when answers take long)"},
      {"retries", OptionType::kNumber, "", "how often a failed request is repeated (5)"},
      {"timeout", OptionType::kNumber, "", "seconds without a connection or a byte (30)"},
      {"sslverify", OptionType::kBool, "", "whether the server's certificate must be valid (on)"},
      {"cafile", OptionType::kString, "", "file with the certificates that are trusted"},
  };
  return options;
}

Target target_of(Context& context, const Options& options) {
  Place place;
  const auto bucket = options.string("bucket");
  const auto key = options.string("key");
  if (!bucket || !key) invalid("An S3 object needs the options bucket and key");
  place.bucket = *bucket;
  place.key = *key;
  place.version = options.string("version-id").value_or("");
  const bool by_instance = wants_instance(options);
  const std::string name = first_of(
      {options.string("profile").value_or(""), variable(context, "AWS_PROFILE"), "default"});
  const UserProfile profile = read_profile(context, name);
  if (options.has("profile") && !profile.found)
    throw Error(ErrorKind::kNotFound, "~/.aws/credentials has no profile '" + name + "'");
  place.endpoint = endpoint_of(context, options, profile);
  place.region =
      first_of({options.string("region").value_or(""), variable(context, "AWS_REGION"),
                variable(context, "AWS_DEFAULT_REGION"), profile.value("region"), kRegion});
  Target target;
  if (options.has("connections"))
    target.transport.connections = target.transport.distant_connections =
        bounded_option(options, "connections", 1, 64, 4);
  target.transport.retries = bounded_option(options, "retries", 0, 1000, 5);
  target.transport.timeout =
      std::chrono::seconds(bounded_option(options, "timeout", 1, 10'000, 30));
  target.transport.verify = options.boolean("sslverify").value_or(true);
  target.transport.ca_file =
      first_of({options.string("cafile").value_or(""), variable(context, "AWS_CA_BUNDLE")});
  Credentials who;
  if (by_instance)
    target.instance = std::make_shared<InstanceCredentials>(context, metadata_service(context));
  else
    who = credentials_of(context, options, profile, name_of(place));
  const bool encrypted = !place.endpoint.starts_with("http://");
  target.sign_payload = options.boolean("sign-payload").value_or(!encrypted);
  target.account = std::make_shared<Account>(std::move(place), std::move(who), target.instance);
  return target;
}

}  // namespace cairn::s3
