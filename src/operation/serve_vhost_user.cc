#include "operation/serve_vhost_user.h"

#include <unistd.h>

#include <memory>
#include <utility>

#include "async/finally.h"
#include "operation/nodes.h"

namespace cairn::operation {
namespace {

struct Served {
  Socket listener;
  std::unique_ptr<vhost_user::Export> exported;
};

// What is taken down in the end.
struct Opened {
  std::vector<NodePtr> nodes;
  std::vector<std::string> sockets;
  UnflushedDisks unflushed;
};

Task<Served> prepare(Caller& caller, const VhostUserPlan& plan, const VhostUserPlan::Disk& disk,
                     Opened& opened) {
  std::vector<Socket> listeners = co_await listen_sockets(SocketAddress::unix_path(disk.socket));
  opened.sockets.push_back(disk.socket);
  vhost_user::DiskOptions options = plan.options;
  options.node = co_await open_served_image(caller, disk.image, opened.nodes);
  opened.unflushed.add(*options.node);
  options.writable =
      disk.image.request.flags.writable && (disk.image.snapshot || !options.node->read_only());
  Served served;
  served.listener = std::move(listeners.front());
  served.exported =
      std::make_unique<vhost_user::Export>(caller.context, std::move(options), plan.log);
  co_return served;
}

Task<void> serve_all(Caller& caller, const VhostUserPlan& plan, Opened& opened) {
  std::vector<Served> all;
  for (const VhostUserPlan::Disk& disk : plan.disks) {
    Served served = co_await prepare(caller, plan, disk, opened);
    all.push_back(std::move(served));
  }
  if (!plan.pid_file.empty()) co_await write_pid_file(plan.pid_file);
  std::vector<uint64_t> sizes;
  for (const NodePtr& node : opened.nodes) sizes.push_back(node->length());
  if (plan.ready) plan.ready(sizes);
  TaskGroup running;
  TaskGroup watchers;
  CancelSource over;
  std::vector<Node*> nodes;
  for (const NodePtr& node : opened.nodes) nodes.push_back(node.get());
  watchers.spawn(lift_limits_in_the_end(caller, std::move(nodes), over));
  for (const Served& served : all)
    running.spawn(served.exported->run(served.listener, caller.cancel));
  co_await finally([&]() -> Task<void> { co_await running.join(); },
                   [&] {
                     over.request();
                     return watchers.join();
                   });
}

}  // namespace

Task<void> serve_vhost_user(Caller& caller, VhostUserPlan plan) {
  const DisksOutliveServer unhurried(caller.context);
  Opened opened;
  co_await finally([&] { return serve_all(caller, plan, opened); },
                   [&] {
                     for (const std::string& path : opened.sockets) ::unlink(path.c_str());
                     return close_all(opened.nodes);
                   });
}

}  // namespace cairn::operation
