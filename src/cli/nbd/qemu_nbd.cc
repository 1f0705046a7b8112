#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "cli/nbd/background.h"
#include "cli/nbd/line.h"
#include "cli/nbd/list.h"
#include "cli/nbd/nbd.h"
#include "cli/signals.h"
#include "cli/system.h"
#include "operation/nbd_client.h"
#include "operation/nbd_device.h"
#include "operation/objects.h"

namespace cairn::cli {
namespace {

void check_list_mode(const Session& session, const NbdLine& line) {
  const operation::ImagePlan& image = line.image;
  if (line.connect || line.disconnect || image.offset != 0 || !image.bitmaps.empty() ||
      image.allocation_depth || image.load_snapshot || line.name_seen ||
      !image.description.empty() || line.format || line.cache_seen || line.aio_seen ||
      line.discard_seen)
    fail(session, "List mode is incompatible with per-device settings");
  if (line.fork) fail(session, "List mode is incompatible with forking");
}

// One socket handed over by a service manager; its number, or -1.
int activation_socket(const Session& session) {
  const long count = activation_sockets();
  if (count <= 0) return -1;
  if (count > 1) fail(session, "qemu-nbd does not support socket activation with LISTEN_FDS > 1");
  if (!keep_activation_socket())
    fail(session, std::string("Socket activation failed: invalid file descriptor fd = 3: ") +
                      std::strerror(errno));
  return 3;
}

void check_activation(const Session& session, const NbdLine& line) {
  const auto refuse = [&](const char* what) {
    fail(session, std::string(what) + " can't be set when using socket activation");
  };
  if (line.port) refuse("TCP port number");
  if (!line.socket.empty()) refuse("Unix socket");
  if (!line.bind.empty()) refuse("The interface");
  if (line.connect) refuse("NBD device");
  if (!line.selinux_label.empty()) refuse("SELinux label");
  if (line.list) fail(session, "List mode is incompatible with socket activation");
}

SocketAddress address_of(const NbdLine& line, int activated) {
  SocketAddress address;
  if (activated >= 0) {
    address.kind = SocketAddress::Kind::kFd;
    address.descriptor = std::to_string(activated);
  } else if (!line.socket.empty()) {
    address = SocketAddress::unix_path(line.socket);
  } else {
    address = SocketAddress::inet(line.bind.empty() ? "0.0.0.0" : line.bind,
                                  line.port.value_or(std::to_string(nbd::kPort)));
  }
  return address;
}

void prepare_tls(Session& session, const NbdLine& line, operation::ServePlan& plan) {
  if (line.tls_creds.empty()) return;
  try {
    plan.server.tls =
        find_tls_credentials(session.context, line.tls_creds, TlsCredentials::Endpoint::kServer);
  } catch (Error& error) {
    throw error.context("Failed to get TLS creds");
  }
  plan.server.authorize = !line.tls_authz.empty();
  plan.server.authorization = find_authorization(session.context, line.tls_authz);
}

void check_tls_line(const Session& session, const NbdLine& line) {
  if (line.tls_creds.empty()) {
    if (!line.tls_authz.empty()) fail(session, "--tls-authz is not permitted without --tls-creds");
    if (!line.tls_hostname.empty())
      fail(session, "--tls-hostname is not permitted without --tls-creds");
    return;
  }
  if (line.connect) fail(session, "TLS is not supported with a host device");
  if (!line.tls_authz.empty() && line.list)
    fail(session, "TLS authorization is incompatible with export list");
  if (!line.tls_hostname.empty() && !line.list)
    fail(session, "TLS hostname is only supported with export list");
}

// What the line says about its image; the reference looks at that when it listens already.
void complete_request(const Session& session, const NbdLine& line, OpenRequest& request) {
  if (line.image_opts) {
    if (line.format) fail(session, "--image-opts and -f are mutually exclusive");
    request.options = image_options(session, line.files[0]);
    request.image_opts = true;
    request.display = line.files[0];
  } else {
    request.filename = line.files[0];
    // An empty name is one that nothing has; it does not ask for probing.
    if (line.format && line.format->empty()) request.options.set("driver", "");
  }
  if (!line.detect_zeroes.empty()) request.options.set("detect-zeroes", line.detect_zeroes);
  if (line.image.offset > INT64_MAX)
    fail(session, fmt::format("Value '{}' is out of range for parameter 'offset'",
                              static_cast<int64_t>(line.image.offset)));
  if (line.native_aio && !line.cache.direct && !line.image_opts)
    throw Error(ErrorKind::kInvalid,
                "aio=native was specified, but it requires cache.direct=on, which was not "
                "specified.");
}

// QEMU's program has not the words before the cause that its other tools have.
Error as_qemu(const std::string& title, const Error& error) {
  const std::string words = "Could not open '" + title + "': ";
  std::string cause = error.message();
  if (cause.starts_with(words)) cause.erase(0, words.size());
  Error told(error.kind(), "Failed to blk_new_open '" + title + "': " + cause);
  for (const Hint& line : error.hints()) told.hint(line);
  return told;
}

operation::ImagePlan image_of(const Session& session, const NbdLine& line) {
  operation::ImagePlan image = line.image;
  OpenRequest& request = image.request;
  image.title = line.files[0];
  request.format = line.format.value_or("");
  request.flags.writable = !line.read_only;
  request.flags.cache = line.cache;
  request.flags.discard_unmap = line.discard_unmap;
  if (session.untrusted) request.flags.references.mode = ReferencePolicy::Mode::kDeny;
  if (!session.manners.explains)
    image.explain = [title = image.title](const Error& error) { return as_qemu(title, error); };
  image.complete = [&session, &line](OpenRequest& asked) {
    complete_request(session, line, asked);
  };
  return image;
}

}  // namespace

int run_qemu_nbd(Session& session, int argc, char** argv) {
  NbdLine line;
  if (!parse_nbd_line(session, line, argc, argv)) return 0;
  if (session.manners.guards && line.port) check_port(*line.port);
  const int activated = activation_socket(session);
  if (activated >= 0) check_activation(session, line);
  if (line.list) check_list_mode(session, line);
  check_tls_line(session, line);
  if (!line.selinux_label.empty() && line.socket.empty())
    fail(session, "--selinux-label is not permitted without --socket");
  if (line.disconnect) {
    operation::disconnect_device(session.caller(), line.files[0]);
    print(line.files[0] + " disconnected\n");
    finish_output();
    return 0;
  }

  // Before anything has a thread: what the child has not, nobody else has.
  Background background;
  const bool leaves = line.fork || (line.connect && !line.verbose);
  if (leaves && background.begin() == Background::Role::kParent) return background.wait();

  const SocketAddress address = address_of(line, activated);
  if (line.list) {
    std::shared_ptr<const TlsCredentials> tls;
    if (!line.tls_creds.empty()) {
      try {
        tls = find_tls_credentials(session.context, line.tls_creds,
                                   TlsCredentials::Endpoint::kClient);
      } catch (Error& error) {
        throw error.context("Failed to get TLS creds");
      }
    }
    const std::string hostname = !line.tls_hostname.empty() ? line.tls_hostname : address.host;
    return list_exports(session, address, tls, hostname);
  }
  operation::ServePlan plan;
  prepare_tls(session, line, plan);
  plan.images.push_back(image_of(session, line));
  plan.address = address;
  plan.socket_label = line.selinux_label;
  plan.shared = line.shared;
  plan.server.persistent = line.persistent;
  plan.server.handshake_limit = std::chrono::seconds(line.handshake_limit);
  if (line.verbose) plan.server.log = [&session](std::string_view text) { session.error(text); };
  plan.pid_file = line.pid_file;
  const bool verbose = line.verbose;
  plan.ready = [&](const nbd::server::Server&, const SocketAddress&) {
    if (::chdir("/") != 0) throw Error::system(errno, "Could not chdir to root directory");
    background.ready(verbose);
    take_time_to_end();
  };
  const auto connected = [&, title = line.files[0]] {
    if (verbose)
      std::fprintf(stderr, "NBD device %s is now connected to %s\n", line.connect->c_str(),
                   title.c_str());
  };
  operation::Caller caller = session.caller();
  if (line.connect)
    run(session, operation::serve_device(caller, std::move(plan), *line.connect, connected));
  else
    run(session, operation::serve(caller, std::move(plan)));
  return 0;
}

}  // namespace cairn::cli
