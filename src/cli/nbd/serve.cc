#include "operation/serve.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <set>

#include "base/size.h"
#include "cli/nbd/line.h"
#include "cli/nbd/nbd.h"
#include "cli/nbd/vhost_user.h"
#include "cli/report.h"
#include "cli/signals.h"
#include "cli/system.h"
#include "operation/nbd_client.h"
#include "operation/objects.h"
#include "platform/directory.h"
#include "platform/file.h"
#include "platform/system.h"

namespace cairn::cli {
namespace {

enum Id : int {
  kServeCache = 1000,
  kServeDiscard,
  kServeDetectZeroes,
  kServeTlsCreds,
  kServeTlsAuthz,
  kOnce,
  kServePidFile,
  kServeHandshakeLimit,
  kServeMemory,
  kThrottle,
  kVhostUser,
  kQueues,
  kBlockSize,
  kSerial,
};

unsigned number(const Arguments& arguments, int id, const char* what, unsigned otherwise) {
  const auto text = arguments.value(id);
  if (!text) return otherwise;
  char* end = nullptr;
  errno = 0;
  const unsigned long value = std::strtoul(text->c_str(), &end, 10);
  if (text->empty() || *end != 0 || errno != 0 || (*text)[0] == '-' || value > INT32_MAX)
    throw UsageError{std::string("'") + *text + "' is no " + what};
  return static_cast<unsigned>(value);
}

// A name for every export: what -x says, else nothing for the only one, else the files' own names.
std::vector<std::string> export_names(const Arguments& arguments) {
  const std::vector<std::string> given = arguments.values('x');
  const auto& words = arguments.words();
  if (given.size() > words.size()) throw UsageError{"more export names than images"};
  std::vector<std::string> names;
  std::set<std::string> taken;
  for (size_t i = 0; i < words.size(); ++i) {
    std::string name;
    if (i < given.size())
      name = given[i];
    else if (words.size() > 1)
      name = words[i].substr(words[i].rfind('/') + 1);
    if (name.size() > nbd::kMaxString) throw UsageError{"export name is too long"};
    const std::string stem = name;
    for (unsigned n = 2; taken.contains(name); ++n) {
      if (i < given.size()) throw UsageError{"two exports are named '" + name + "'"};
      name = fmt::format("{}-{}", stem, n);
    }
    taken.insert(name);
    names.push_back(name);
  }
  return names;
}

constexpr const char* kThrottleGroup = "serve-throttle";

operation::ImagePlan image_of(const Session& session, const Arguments& arguments,
                              const std::string& word) {
  operation::ImagePlan image;
  image.title = word;
  image.request = image_request(session, arguments, word, arguments.value('f'));
  image.description = arguments.value_or('D', "");
  image.snapshot = arguments.has('s');
  image.load_snapshot = arguments.value('l');
  image.exact_size = true;
  image.allocation_depth = arguments.has('A');
  image.bitmaps = arguments.values('B');
  if (arguments.has(kThrottle)) image.throttle_group = kThrottleGroup;
  OpenFlags& flags = image.request.flags;
  flags.writable = !arguments.has('r') && !image.load_snapshot;
  if (const auto cache = arguments.value(kServeCache))
    flags.cache = cache_mode(session, *cache, "Invalid cache mode");
  const std::string discard = arguments.value_or(kServeDiscard, "unmap");
  if (discard != "unmap" && discard != "ignore")
    throw UsageError{"--discard is unmap or ignore, not '" + discard + "'"};
  flags.discard_unmap = discard == "unmap";
  if (const auto detect = arguments.value(kServeDetectZeroes))
    image.request.options.set("detect-zeroes", *detect);
  return image;
}

// What to write into an URI for a server that listens on every address.
std::string reachable(const std::string& host) {
  if (host != "0.0.0.0" && host != "::" && !host.empty()) return host;
  const std::string name = host_name();
  return name.empty() ? "localhost" : name;
}

// The line on the terminal: clients, and what went through since it was last drawn.
class Meter {
 public:
  void draw(const nbd::server::Server& server) {
    const nbd::server::ServerStatistics now = server.statistics();
    const auto time = std::chrono::steady_clock::now();
    const double seconds = std::max(0.001, std::chrono::duration<double>(time - time_).count());
    const auto rate = [seconds](uint64_t after, uint64_t before) {
      return static_cast<uint64_t>(static_cast<double>(after - before) / seconds);
    };
    std::string line = fmt::format("\r{}{}  read {}/s  written {}/s  {} requests/s", now.clients,
                                   now.clients == 1 ? " client" : " clients",
                                   human_size(rate(now.bytes_read, last_.bytes_read)),
                                   human_size(rate(now.bytes_written, last_.bytes_written)),
                                   rate(now.requests, last_.requests));
    std::fprintf(stderr, "%s\x1b[K", line.c_str());
    std::fflush(stderr);
    last_ = now;
    time_ = time;
    drawn_ = true;
  }
  void finish() {
    if (drawn_) std::fprintf(stderr, "\r\x1b[K");
    drawn_ = false;
  }

 private:
  nbd::server::ServerStatistics last_;
  std::chrono::steady_clock::time_point time_ = std::chrono::steady_clock::now();
  bool drawn_ = false;
};

void print_uris(const operation::ServePlan& plan, const std::vector<std::string>& names,
                const std::vector<std::string>& titles, SocketAddress where) {
  if (where.kind == SocketAddress::Kind::kInet) where.host = reachable(where.host);
  for (size_t i = 0; i < names.size(); ++i) {
    std::string line = operation::uri_of(plan, where, names[i]);
    if (names.size() > 1) line += "  " + titles[i];
    print(line + "\n");
  }
  finish_output();
}

void report(const Session& session, const operation::ServePlan& plan,
            const nbd::server::Server& server, const std::vector<std::string>& titles,
            const SocketAddress& where) {
  SocketAddress address = where;
  if (where.kind == SocketAddress::Kind::kInet) address.host = reachable(where.host);
  Value exports = Value::array();
  for (size_t i = 0; i < titles.size(); ++i) {
    const nbd::server::ExportPtr exported = server.exports()[i];
    const nbd::server::Export& shown = *exported;
    Value one = Value::object();
    one.set("name", shown.name());
    one.set("filename", titles[i]);
    one.set("size", shown.size());
    one.set("writable", shown.writable());
    one.set("uri", operation::uri_of(plan, address, shown.name()));
    exports.push_back(std::move(one));
  }
  Value out = Value::object();
  out.set("pid", uint64_t{platform::process_number()});
  if (where.kind == SocketAddress::Kind::kInet) {
    out.set("host", where.host);
    out.set("port", where.port);
  } else {
    out.set("socket", where.path);
  }
  out.set("tls", plan.server.tls != nullptr);
  out.set("exports", std::move(exports));
  print_report(session, out);
}

// Disks for virtual machines rather than for NBD clients.
int run_vhost_user(Session& session, Arguments& arguments) {
  const std::pair<int, const char*> of_nbd[] = {{'k', "socket"},
                                                {'b', "bind"},
                                                {'p', "port"},
                                                {'x', "export-name"},
                                                {'e', "shared"},
                                                {'D', "description"},
                                                {'A', "allocation-depth"},
                                                {'B', "bitmap"},
                                                {kServeTlsCreds, "tls-creds"},
                                                {kServeTlsAuthz, "tls-authz"},
                                                {kOnce, "once"},
                                                {kServeHandshakeLimit, "handshake-limit"},
                                                {kServeMemory, "memory"}};
  for (const auto& [id, name] : of_nbd)
    if (arguments.has(id))
      throw UsageError{std::string("--") + name + " is for NBD, not for --vhost-user"};
  operation::VhostUserPlan plan;
  const std::vector<std::string> sockets = arguments.values(kVhostUser);
  const auto& words = arguments.words();
  if (sockets.size() != words.size()) throw UsageError{"--vhost-user is given once for each image"};
  for (size_t i = 0; i < words.size(); ++i)
    plan.disks.push_back({.image = image_of(session, arguments, words[i]), .socket = sockets[i]});
  const unsigned queues = number(arguments, kQueues, "number of queues", 1);
  if (queues == 0 || queues > UINT16_MAX) throw UsageError{"a disk has 1 to 65535 queues"};
  plan.options.queues = static_cast<uint16_t>(queues);
  plan.options.block_bytes = number(arguments, kBlockSize, "size of a block", 512);
  plan.options.serial = arguments.value_or(kSerial, plan.options.serial);
  plan.options.write_through = plan.disks.front().image.request.flags.cache.write_through;
  plan.pid_file = arguments.value_or(kServePidFile, "");
  return serve_vhost_user(session, std::move(plan), arguments.has('q'));
}

int run_serve(Session& session, Arguments& arguments) {
  const auto& words = arguments.words();
  if (words.empty()) throw UsageError{"Expecting the name of an image"};
  if (add_objects(session, arguments)) return 0;
  check_format_flags(session, arguments);
  if (const auto limits = arguments.value(kThrottle))
    operation::add_throttle_group(session.context, kThrottleGroup, *limits);
  if (arguments.has(kVhostUser)) return run_vhost_user(session, arguments);
  for (const auto& [id, name] : {std::pair{int{kQueues}, "queues"},
                                 {int{kBlockSize}, "block-size"},
                                 {int{kSerial}, "serial"}})
    if (arguments.has(id)) throw UsageError{std::string("--") + name + " needs --vhost-user"};
  operation::ServePlan plan;
  const std::vector<std::string> names = export_names(arguments);
  for (size_t i = 0; i < words.size(); ++i) {
    plan.images.push_back(image_of(session, arguments, words[i]));
    plan.images.back().name = names[i];
  }
  if (const auto path = arguments.value('k')) {
    if (arguments.has('p') || arguments.has('b'))
      throw UsageError{"a Unix socket has neither port nor address"};
    const std::string folder = platform::canonical(".");
    plan.address = SocketAddress::unix_path(
        platform::is_absolute(*path) || folder.empty() ? *path : folder + "/" + *path);
  } else {
    const std::string port = arguments.value_or('p', std::to_string(nbd::kPort));
    check_port(port);
    // Only this machine, unless it is said who else.
    plan.address = SocketAddress::inet(arguments.value_or('b', "127.0.0.1"), port);
  }
  plan.shared = number(arguments, 'e', "number of clients", 100);
  plan.server.handshake_limit =
      std::chrono::seconds(number(arguments, kServeHandshakeLimit, "number of seconds", 10));
  if (const auto text = arguments.value(kServeMemory))
    plan.server.memory = size_argument(session, *text, "memory", nbd::server::ServerMemory::kLeast,
                                       uint64_t{1} << 40);
  plan.server.persistent = !arguments.has(kOnce);
  plan.server.first_is_default = true;
  plan.pid_file = arguments.value_or(kServePidFile, "");
  if (const auto id = arguments.value(kServeTlsCreds))
    plan.server.tls = find_tls_credentials(session.context, *id, TlsCredentials::Endpoint::kServer);
  if (const auto id = arguments.value(kServeTlsAuthz)) {
    if (!plan.server.tls) throw UsageError{"--tls-authz needs --tls-creds"};
    plan.server.authorize = true;
    plan.server.authorization = find_authorization(session.context, *id);
  }
  Meter meter;
  const bool quiet = arguments.has('q');
  plan.quiet = quiet;
  if (!quiet) {
    plan.server.log = [&](std::string_view text) {
      std::fprintf(stderr, "\r\x1b[K%s: %.*s\n", session.program.c_str(),
                   static_cast<int>(text.size()), text.data());
    };
    if (!platform::is_terminal(STDERR_FILENO))
      plan.server.log = [&](std::string_view text) { session.error(text); };
    else
      plan.tick = [&](const nbd::server::Server& server) { meter.draw(server); };
  }
  operation::ServePlan* const shown = &plan;
  plan.ready = [&session, shown, names, words, quiet](const nbd::server::Server& server,
                                                      const SocketAddress& where) {
    if (session.json)
      report(session, *shown, server, words, where);
    else if (!quiet)
      print_uris(*shown, names, words, where);
    take_time_while_servers_answer();
  };
  operation::ServePlan copy = plan;
  operation::Caller caller = session.caller();
  run(session, operation::serve(caller, std::move(copy)));
  meter.finish();
  return 0;
}

}  // namespace

Verb serve_verb() {
  return {
      .name = "serve",
      .summary = "serves disks to virtual machines and other NBD clients",
      .synopsis = "[-f FMT] [-r] [-s] [-k SOCKET | -b ADDRESS -p PORT] [-x NAME] [OPTIONS] FILE…",
      .flags = {kFormatFlag,
                {'r', "read-only", nullptr, "refuse writes"},
                {'s', "snapshot", nullptr, "writes go to a temporary overlay and are lost"},
                {'l', "load-snapshot", "SNAP", "serve this internal snapshot, read-only"},
                {'k', "socket", "PATH", "listen at a Unix socket"},
                {'b', "bind", "ADDRESS", "listen at this address (127.0.0.1: this machine only)"},
                {'p', "port", "PORT", "TCP port (10809); 0: any that is free"},
                {'x', "export-name", "NAME", "name of the export; once for each image"},
                {'D', "description", "TEXT", "description of the exports for clients"},
                {'e', "shared", "NUM", "clients at a time (100), 0: any number"},
                {'A', "allocation-depth", nullptr, "offer qemu:allocation-depth"},
                {'B', "bitmap", "NAME", "offer qemu:dirty-bitmap:NAME"},
                {kServeCache, "cache", "MODE",
                 "none, writeback, writethrough, directsync or unsafe"},
                {kServeDiscard, "discard", "MODE", "unmap (when not given) or ignore"},
                {kServeDetectZeroes, "detect-zeroes", "MODE", "off, on or unmap"},
                {kServeTlsCreds, "tls-creds", "ID", "require TLS with this tls-creds-… object"},
                {kServeTlsAuthz, "tls-authz", "ID",
                 "accept only clients that this authz-… object allows"},
                {kServeHandshakeLimit, "handshake-limit", "SECONDS",
                 "time a client has for the NBD handshake (10); 0: no limit"},
                {kServeMemory, "memory", "SIZE",
                 "for the data of all clients' requests together (256M)"},
                {kOnce, "once", nullptr, "exit when the last client has disconnected"},
                {kThrottle, "throttle", "LIMITS",
                 "bps-total=SIZE, iops-total=NUM and more, for all disks together"},
                {kVhostUser, "vhost-user", "PATH",
                 "be a virtual machine's disk at this Unix socket; once for each image"},
                {kQueues, "queues", "NUM", "queues of a vhost-user disk (1)"},
                {kBlockSize, "block-size", "BYTES", "logical block of a vhost-user disk (512)"},
                {kSerial, "serial", "TEXT", "serial number of a vhost-user disk, 20 bytes"},
                {kServePidFile, "pid-file", "PATH", "write the process ID to this file once ready"},
                kQuietFlag,
                kForceShareFlag,
                kImageOptsFlag,
                kObjectFlag},
      .own_flags = {kDiskFlag},
      .run = run_serve,
      .own = true};
}

}  // namespace cairn::cli
