#include "operation/serve.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <exception>
#include <string>

#include "async/finally.h"
#include "async/runtime.h"
#include "base/arith.h"
#include "export/nbd/bitmaps.h"
#include "net/nbd_uri.h"
#include "operation/nodes.h"
#include "operation/snapshot.h"
#include "platform/file.h"

namespace cairn::operation {
namespace {

using namespace std::chrono_literals;

uint64_t export_size(const ImagePlan& plan, const Node& node) {
  uint64_t length = node.length();
  // A raw node ends with a whole sector, its file may not.
  if (plan.exact_size && node.filtered() != nullptr && node.filtered()->length() != 0)
    length = std::min(length, node.filtered()->length());
  if (plan.offset > length)
    throw Error(ErrorKind::kInvalid,
                fmt::format("Offset ({}) cannot be greater than size of the containing file ({})",
                            plan.offset, length));
  length -= plan.offset;
  return plan.exact_size ? length : align_down(length, 512);
}

// Whether only this machine reaches a server there.
bool is_local(const std::string& host) {
  return host == "localhost" || host == "::1" || host == "[::1]" || host.starts_with("127.");
}

// NBD without TLS has no names of clients: who reaches the address has the disk.
void warn_if_unprotected(const Caller& caller, const ServePlan& plan) {
  if (!caller.guarded || plan.quiet || plan.connected >= 0 || plan.server.tls) return;
  if (plan.address.kind != SocketAddress::Kind::kInet || is_local(plan.address.host)) return;
  bool writable = false;
  for (const ImagePlan& image : plan.images) writable |= image.request.flags.writable;
  const std::string host = plan.address.host.empty() ? "every address" : plan.address.host;
  caller.warn("listening on " + host + " without TLS: everyone who can reach it can read" +
              (writable ? " and change" : "") +
              " the disk; give TLS credentials, or listen on 127.0.0.1 for this machine only");
}

Task<void> tick(const ServePlan& plan, const nbd::server::Server& server, CancelSource& over) {
  while (!over.requested()) {
    co_await await_ready(over.descriptor(), POLLIN, std::chrono::steady_clock::now() + 500ms);
    if (!over.requested()) plan.tick(server);
  }
}

// The one connection of a server that does not listen.
Task<void> serve_connected(nbd::server::Server& server, int fd) {
  Socket socket(fd);
  co_await server.serve(std::move(socket));
}

Task<void> serve_on(Caller& caller, ServePlan& plan, std::vector<Socket> listeners) {
  nbd::server::Server server(caller.context, plan.server);
  if (!plan.pid_file.empty()) co_await write_pid_file(plan.pid_file);
  SocketAddress where = plan.address;
  if (!listeners.empty()) {
    const SocketAddress bound = listeners.front().local_address();
    if (where.kind == SocketAddress::Kind::kInet) where.port = bound.port;
    if (where.kind == SocketAddress::Kind::kFd) where = bound;
  }
  if (plan.ready) plan.ready(server, where);
  warn_if_unprotected(caller, plan);
  TaskGroup watchers;
  CancelSource over;
  if (plan.tick) watchers.spawn(tick(plan, server, over));
  std::vector<Node*> nodes;
  for (const auto& exported : plan.server.exports) nodes.push_back(&exported->node());
  watchers.spawn(lift_limits_in_the_end(caller, std::move(nodes), over));
  if (plan.connected >= 0) watchers.spawn(serve_connected(server, plan.connected));
  co_await finally(
      [&]() -> Task<void> { co_await server.run(std::move(listeners), caller.cancel); },
      [&] {
        over.request();
        return watchers.join();
      });
}

}  // namespace

std::string uri_of(const ServePlan& plan, const SocketAddress& where, const std::string& name) {
  return nbd::format_uri(where, name, plan.server.tls != nullptr);
}

Task<std::shared_ptr<const nbd::server::Export>> open_export(Caller& caller, const ImagePlan& plan,
                                                             unsigned shared,
                                                             std::vector<NodePtr>& nodes) {
  const NodePtr node = co_await open_served_image(caller, plan, nodes);
  nbd::server::ExportOptions options;
  options.name = plan.name;
  options.description = plan.description;
  options.node = node;
  options.offset = plan.offset;
  options.size = export_size(plan, *node);
  options.writable = plan.request.flags.writable && (plan.snapshot || !node->read_only());
  options.multi_conn = shared != 1;
  options.allocation_depth = plan.allocation_depth;
  // QEMU numbers its contexts from the last one.
  std::vector<DirtyBitmapPtr> bitmaps;
  for (size_t i = plan.bitmaps.size(); i-- != 0;)
    bitmaps.push_back(nbd::server::bitmap_below(*node, plan.bitmaps[i]));
  nbd::server::offer_bitmaps(options, *node, bitmaps);
  co_return std::make_shared<const nbd::server::Export>(std::move(options));
}

namespace {

// What SELinux calls the sockets that this thread makes from now on; an empty label: what it calls
// them by itself. The kernel's file takes it, as libselinux would.
void label_new_sockets(const std::string& label) {
  const int fd = platform::open("/proc/thread-self/attr/sockcreate", O_WRONLY | O_CLOEXEC);
  const bool done = fd >= 0 && platform::write(fd, label.data(), label.size()) >= 0;
  const int error = errno;
  if (fd >= 0) platform::close(fd);
  if (!done) throw Error::system(error, "Cannot set SELinux socket create context to " + label);
}

// A task stays on its thread: what is set for that holds for this socket and no other.
Task<std::vector<Socket>> listen_labelled(ServePlan& plan) {
  if (!plan.socket_label.empty()) label_new_sockets(plan.socket_label);
  std::vector<Socket> sockets = co_await listen_sockets(plan.address);
  if (!plan.socket_label.empty()) label_new_sockets({});
  co_return sockets;
}

}  // namespace

Task<void> serve(Caller& caller, ServePlan plan) {
  const DisksOutliveServer unhurried(caller.context);
  UnflushedDisks unflushed;
  std::vector<NodePtr> nodes;
  co_await finally(
      [&]() -> Task<void> {
        const bool listening = plan.connected < 0;
        std::vector<Socket> listeners;
        if (listening) listeners = co_await listen_labelled(plan);
        for (const ImagePlan& image : plan.images) {
          auto exported = co_await open_export(caller, image, plan.shared, nodes);
          unflushed.add(*nodes.back());
          plan.server.exports.push_back(std::move(exported));
        }
        plan.server.max_clients = plan.shared;
        co_await serve_on(caller, plan, std::move(listeners));
        if (listening && plan.remove_socket && plan.address.kind == SocketAddress::Kind::kUnix &&
            !plan.address.abstract)
          platform::remove(plan.address.path);
      },
      [&] {
        plan.server.exports.clear();
        return close_all(nodes);
      });
}

}  // namespace cairn::operation
