#include <fmt/core.h>

#include "base/arith.h"
#include "block/context.h"
#include "block/open.h"
#include "block/takes_back.h"
#include "protocol/driver_options.h"
#include "protocol/nfs/node.h"
#include "protocol/server_driver.h"

namespace cairn {
namespace {

using namespace nfs;

const OptionSchema kOpenOptions = {
    {"server.type", OptionType::kString, "", "inet"},
    {"server.host", OptionType::kString, "", "name or address of the server"},
    {"path", OptionType::kString, "", "the export and the file in it"},
    {"user", OptionType::kNumber, "", "number of the user who asks (AUTH_SYS)"},
    {"group", OptionType::kNumber, "", "number of the group"},
    {"tcp-syn-count", OptionType::kNumber, "", "how often a connection is attempted"},
    {"readahead-size", OptionType::kNumber, "0", "bytes that are read ahead, 1 MiB at most"},
    {"page-cache-size", OptionType::kNumber, "0", "pages of 4 KiB that are kept"},
    {"debug", OptionType::kNumber, "0", "how much the library logs: 0, 1 or 2"},
    {"version", OptionType::kNumber, "3", "of NFS: 3 or 4", true},
    {"nfsport", OptionType::kNumber, "", "port of the server, instead of the port mapper's", true},
    {"mountport", OptionType::kNumber, "", "port of its mount service (version 3)", true},
    {"timeout", OptionType::kNumber, "30", "seconds without an answer", true},
    {"sessions", OptionType::kNumber, "4", "how many connections are opened at most", true},
    {"retries", OptionType::kNumber, "3", "how often a lost connection is opened again", true},
};

constexpr unsigned kMostReadahead = 1 << 20, kMostPages = 8 << 10, kMostDebug = 2;
constexpr unsigned kMostId = 0xffff'fffe, kMostPort = 65535;

std::string host_of(Options& options) {
  if (!options.has_tree("server")) invalid("Parameter 'server' is missing");
  const Options server = options.take_tree("server");
  const auto type = server.string("type");
  if (!type) invalid("Parameter 'server.type' is missing");
  if (*type != "inet") invalid("Parameter 'type' does not accept value '" + *type + "'");
  const auto host = server.string("host");
  if (!host || host->empty()) invalid("Parameter 'server.host' is missing");
  if (const auto unknown = server.unused(); !unknown.empty())
    invalid("Parameter 'server." + unknown.front() + "' is unexpected");
  return *host;
}

// The number of KEY; larger ones become MOST with a warning, WHAT and how large it is now.
unsigned limited(Context& context, const Options& options, const char* key, unsigned most,
                 const char* what) {
  const uint64_t value = options.number(key).value_or(0);
  if (value > most) context.warn(fmt::format("{}{}", what, most));
  return static_cast<unsigned>(std::min<uint64_t>(value, most));
}

std::optional<unsigned> id_of(const Options& options, const char* key) {
  if (!options.has(key)) return std::nullopt;
  return bounded_option(options, key, 0, kMostId, 0);
}

struct Description {
  Target target;
  std::string name;  // as it is shown
};

Description describe(Context& context, Options& options, const CacheMode& cache) {
  const auto path = options.string("path");
  if (!path) invalid("Parameter 'path' is missing");
  Description result;
  Target& target = result.target;
  target.host = host_of(options);
  target.place = split_path(*path);
  target.user = id_of(options, "user");
  target.group = id_of(options, "group");
  target.syn_count = bounded_option(options, "tcp-syn-count", 0, 127, 0);
  target.readahead = limited(context, options, "readahead-size", kMostReadahead,
                             "Truncating NFS readahead size to ");
  target.page_cache =
      limited(context, options, "page-cache-size", kMostPages, "Truncating NFS pagecache size to ");
  target.debug = limited(context, options, "debug", kMostDebug, "Limiting NFS debug level to ");
  if (cache.direct && target.readahead != 0)
    invalid("Cannot enable NFS readahead if cache.direct = on");
  if (cache.direct && target.page_cache != 0)
    invalid("Cannot enable NFS pagecache if cache.direct = on");
  target.version = bounded_option(options, "version", 3, 4, 3);
  target.nfs_port = bounded_option(options, "nfsport", 0, kMostPort, 0);
  target.mount_port = bounded_option(options, "mountport", 0, kMostPort, 0);
  target.timeout = std::chrono::seconds(bounded_option(options, "timeout", 1, 100'000, 30));
  target.sessions = bounded_option(options, "sessions", 1, 32, target.sessions);
  target.retries = bounded_option(options, "retries", 0, 1000, target.retries);
  // One session would not see in its cache what another one writes.
  if (target.readahead != 0 || target.page_cache != 0) target.sessions = 1;
  std::string query;
  for (const char* key : {"version", "nfsport", "mountport"})
    if (const auto value = options.number(key))
      query += fmt::format("{}{}={}", query.empty() ? "" : "&", key, *value);
  result.name = make_uri(target.host, *path, query);
  return result;
}

class NfsDriver : public ServerDriver, public TakesBack {
 public:
  NfsDriver()
      : ServerDriver({.name = "nfs",
                      .title = "files of an NFS server, without mounting them",
                      .prefixes = {"nfs"},
                      .abilities = {.create = true, .resize = true},
                      .capabilities = NfsNode::Capabilities::ids(),
                      .open_options = kOpenOptions,
                      .create_options = size_option()},
                     {"path", "user", "group", "tcp-syn-count", "readahead-size", "page-cache-size",
                      "version", "nfsport", "mountport", "debug"}) {}

  Task<NodePtr> open(OpenContext& request) const override {
    Description description = describe(request.context, request.options, request.flags.cache);
    co_return co_await connected(
        std::make_shared<NfsNode>(request.context, *this, std::move(description.target),
                                  request.flags.writable, std::move(description.name)));
  }

  bool makes_only_new() const override { return false; }

  Task<void> take_back(Context& context, std::string filename, Options) const override {
    Options options = named(filename);
    const Description description = describe(context, options, {});
    Session session(description.target, true, false, nullptr);
    co_await remove_remote_file(session);
  }

  Task<void> create(Context& context, CreateRequest request) const override {
    Options options = place_of(request);
    Description description = describe(context, options, {});
    Session session(description.target, true, true, context.cancel);
    co_await make_remote_file(session, align_up(request.size, 512));
  }

 protected:
  Options parse_name(std::string_view filename) const override { return parse_uri(filename); }
};

}  // namespace

std::unique_ptr<Driver> make_nfs_driver() { return std::make_unique<NfsDriver>(); }

}  // namespace cairn
