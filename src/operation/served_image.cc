#include "operation/served_image.h"

#include <cerrno>
#include <chrono>
#include <utility>

#include "async/runtime.h"
#include "block/capabilities/delaying.h"
#include "block/remote.h"
#include "operation/nodes.h"
#include "operation/snapshot.h"
#include "platform/file.h"
#include "platform/lock.h"
#include "platform/system.h"

namespace cairn::operation {
namespace {

using namespace std::chrono_literals;

constexpr auto kPidFileWait = 2s;

Task<NodePtr> open_planned(Caller& caller, const ImagePlan& plan) {
  NodePtr node;
  try {
    OpenRequest request = plan.request;
    // Clients rely on the size that they know; an overlay keeps its own.
    request.flags.unshare_resize = !plan.snapshot;
    if (plan.complete) plan.complete(request);
    node = co_await open_image(caller.context, std::move(request), plan.snapshot);
  } catch (const Error& error) {
    if (!plan.explain) throw;
    throw plan.explain(error);
  }
  co_return node;
}

// The filter belongs to the caller, with NODE below it.
Task<NodePtr> throttle(Caller& caller, const ImagePlan& plan, NodePtr node) {
  OpenRequest request;
  request.display = plan.title;
  request.options.set("driver", "throttle");
  request.options.set("throttle-group", plan.throttle_group);
  request.flags.writable = !node->read_only();
  request.flags.discard_unmap = plan.request.flags.discard_unmap;
  request.file = std::move(node);
  NodePtr filter = co_await open_node(caller.context, std::move(request));
  co_return filter;
}

void add_delaying(Node& node, std::vector<Delaying*>& found) {
  if (auto* delaying = node.as<Delaying>()) found.push_back(delaying);
  for (const Child& child : node.children())
    if (child.node) add_delaying(*child.node, found);
}

// A server that is ending keeps the lock of its file until it has closed its images: waits for
// that, a moment.
Task<void> lock_pid_file(int fd) {
  const auto until = std::chrono::steady_clock::now() + kPidFileWait;
  while (platform::lock_for_process(fd) != 0) {
    const int error = errno;
    if ((error != EAGAIN && error != EACCES) || std::chrono::steady_clock::now() >= until)
      throw Error::system(error, "Cannot lock pid file");
    co_await sleep_for(10ms);
  }
}

}  // namespace

Task<NodePtr> open_served_image(Caller& caller, const ImagePlan& plan,
                                std::vector<NodePtr>& nodes) {
  NodePtr node = co_await open_planned(caller, plan);
  nodes.push_back(node);
  if (plan.load_snapshot) {
    try {
      co_await show_snapshot(*node, *plan.load_snapshot);
    } catch (Error& error) {
      if (error.message().starts_with("Failed to load snapshot") || !error.hints().empty()) throw;
      throw error.context("Failed to load snapshot");
    }
  }
  if (!plan.throttle_group.empty()) {
    node = co_await throttle(caller, plan, std::move(node));
    nodes.back() = node;
  }
  co_return node;
}

void UnflushedDisks::add(const Node& node) {
  if (node.read_only() || !is_remote(node)) return;
  disks_.push_back(std::make_unique<Unfinished>(node.filename(), Unfinished::Fate::kUnflushed));
}

Task<void> lift_limits_in_the_end(Caller& caller, std::vector<Node*> nodes, CancelSource& over) {
  constexpr auto kPoll = 100ms;
  std::vector<Delaying*> limited;
  for (Node* node : nodes) add_delaying(*node, limited);
  while (!limited.empty() && !over.requested()) {
    co_await await_ready(over.descriptor(), POLLIN, std::chrono::steady_clock::now() + kPoll);
    if (!caller.cancel.requested()) continue;
    for (Delaying* node : limited) node->hurry(true);
    co_return;
  }
}

Task<void> write_pid_file(std::string path) {
  const int fd = platform::open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) throw Error::system(errno, "Could not create '" + path + "'");
  co_await lock_pid_file(fd);
  const std::string text = std::to_string(platform::process_number()) + "\n";
  if (platform::set_length(fd, 0) != 0 ||
      platform::write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    throw Error::system(errno, "Failed to write pid file");
}

}  // namespace cairn::operation
