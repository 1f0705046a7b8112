#include <algorithm>

#include "base/value.h"
#include "block/context.h"
#include "block/open.h"
#include "protocol/driver_options.h"
#include "protocol/s3/upload.h"
#include "protocol/web/remote_node.h"

namespace cairn {
namespace {

using namespace s3;

constexpr std::string_view kOfName[] = {"bucket", "key", "version-id"};
// Options that change neither which object it is nor who may read it.
constexpr std::string_view kNotShown[] = {"connections", "retries", "timeout", "readahead"};

template <size_t N>
bool is_one_of(const std::string_view (&all)[N], std::string_view key) {
  return std::find(std::begin(all), std::end(all), key) != std::end(all);
}

OptionSchema opening_schema() {
  OptionSchema options = {
      {"bucket", OptionType::kString, "", "the bucket of the object"},
      {"key", OptionType::kString, "", "the name of the object in it"},
      {"version-id", OptionType::kString, "", "which version of it (the latest)"},
      {"readahead", OptionType::kSize, "256k", "bytes that are first fetched beyond a read"},
  };
  options.insert(options.end(), object_options().begin(), object_options().end());
  return options;
}

OptionSchema creation_schema() {
  OptionSchema options = object_options();
  options.push_back({"part-size", OptionType::kSize, "",
                     "bytes that are sent at a time, 5M to 5G (8M to 16M, more for large images)"});
  options.push_back({"sign-payload", OptionType::kBool, "",
                     "sign what is sent with its SHA-256 (off for https, else on)"});
  return options;
}

// The name under which people know the disk. Secrets are in it as IDs alone.
std::string shown_name(const Profile& profile, const std::string& plain, const Options& options) {
  Value tree = Value::object();
  tree.set("driver", "s3");
  bool more = false;
  for (const OptionSpec& spec : opening_schema()) {
    const auto value = options.string(spec.name);
    if (!value || is_one_of(kNotShown, spec.name)) continue;
    more = more || !is_one_of(kOfName, spec.name);
    tree.set(std::string(spec.name), *value);
  }
  return more ? "json:" + tree.compact(profile.json_order) : plain;
}

class S3Driver : public Driver {
 public:
  S3Driver()
      : Driver({.name = "s3",
                .title = "objects of S3 services",
                .kind = DriverKind::kProtocol,
                .page = "protocols/s3.md",
                .prefixes = {"s3"},
                .abilities = {.create = true, .read_only = true},
                .capabilities = web::RemoteNode::Capabilities::ids(),
                .verbatim = true,
                .remote = true,
                .written_once = true,
                .open_options = opening_schema(),
                .create_options = creation_schema()}) {}

  void parse_filename(std::string_view filename, Options& options) const override {
    for (const std::string_view key : kOfName)
      if (options.has(key))
        invalid("Option '" + std::string(key) + "' cannot be used with a file name");
    Place place = parse_name(filename);
    options.set("bucket", std::move(place.bucket));
    options.set("key", std::move(place.key));
    if (!place.version.empty()) options.set("version-id", std::move(place.version));
  }

  Task<NodePtr> open(OpenContext& request) const override {
    const Target target = target_of(request.context, request.options);
    if (request.flags.writable)
      throw Error(ErrorKind::kDenied, target.account->shown() + ": an object cannot be changed")
          .hint("Copy it to a file with `cairn convert`, change that, and convert it back.");
    if (target.instance) co_await target.instance->open();
    web::Settings settings;
    settings.scheme = "https";
    settings.transport = target.transport;
    settings.dialect = target.account;
    settings.shown = target.account->shown();
    settings.location.url = target.account->url();
    settings.server = request.server;
    settings.readahead = request.options.size("readahead").value_or(settings.readahead);
    auto node = std::make_shared<web::RemoteNode>(
        request, std::move(settings),
        shown_name(request.context.profile, target.account->shown(), request.options));
    co_await connect_or_close(*node);
    co_return node;
  }

  Task<std::shared_ptr<ByteSink>> upload(Context& context, UploadRequest request) const override {
    Options options = request.options;
    parse_filename(request.filename, options);
    if (options.has("version-id"))
      invalid(request.filename + ": a new object gets a version from the service");
    Target target = target_of(context, options);
    if (target.instance) co_await target.instance->open();
    const uint64_t part = part_bytes(request.length, options.size("part-size").value_or(0));
    auto upload = std::make_shared<Upload>(context, std::move(target), part, request.log);
    if (!request.overwrite) co_await upload->refuse_existing();
    co_await upload->go_on();
    co_return upload;
  }
};

}  // namespace

std::unique_ptr<Driver> make_s3_driver() { return std::make_unique<S3Driver>(); }

}  // namespace cairn
