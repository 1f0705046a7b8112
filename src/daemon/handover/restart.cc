#include "daemon/handover/restart.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "base/version.h"
#include "block/driver.h"
#include "block/graph/recipes.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/handover/jobs.h"
#include "daemon/handover/link.h"
#include "daemon/handover/state.h"
#include "daemon/journal/job_journal.h"
#include "platform/file.h"

namespace cairn::daemon {
namespace {

using namespace std::chrono_literals;

// What the successor may take to start, and to open all disks.
constexpr auto kStartTime = 30s;
constexpr auto kOpenTime = 120s;

// Throws kNotFound where a file that is open has no name any more: neither the successor nor this
// process could open it again. Names that are relative are those of the directory in which the
// daemon was started, which it may have left. The graph's lock is held.
void check_files(const Graph& graph) {
  for (const NodePtr& node : graph.nodes()) {
    const bool is_file = node->driver().name() == "file" && node->children().empty();
    if (is_file && node->filename().starts_with('/') && !platform::exists(node->filename()))
      throw Error(ErrorKind::kNotFound,
                  "'" + node->filename() + "' could not be opened again: it is not there any more");
  }
}

// The state of everything but the disks, and which socket has which number.
Value first_message(Daemon& daemon, std::vector<int>& descriptors) {
  Value sockets = Value::array();
  for (const ListeningSockets::Open& open : daemon.sockets().all()) {
    Value one = Value::object();
    one.set("owned", open.of_owner);
    one.set("name", open.name);
    sockets.push_back(std::move(one));
    descriptors.push_back(open.descriptor);
  }
  Value message = Value::object();
  message.set("version", version());
  message.set("front", capture_front(daemon));
  message.set("sockets", std::move(sockets));
  return message;
}

// The disks of a daemon between two processes.
class DiskHandover {
 public:
  explicit DiskHandover(Daemon& daemon) : daemon_(daemon) {}

  // Closes them; gives what the successor opens. Requests of clients are answered first.
  Task<Value> give_up() {
    given_up_ = true;
    daemon_.mute_jobs(true);
    exports_ = capture_exports(daemon_);
    co_await hold_exported();
    co_await daemon_.exports().remove_all([](const LiveExport&) { return true; }, false);
    co_await daemon_.nbd().stop();
    if (daemon_.journal() != nullptr) co_await daemon_.journal()->hold();
    jobs_ = co_await suspend_jobs(daemon_);
    {
      const auto change = co_await daemon_.graph().change();
      nodes_ = capture_nodes(daemon_);
      co_await let_go();
      co_await daemon_.graph().close();
    }
    if (daemon_.journal() != nullptr) co_await daemon_.journal()->release();
    flushed_ = true;
    daemon_.options().hold_pid_file(false);
    Value message = Value::object();
    message.set("exports", exports_);
    message.set("nodes", nodes_);
    message.set("jobs", jobs_);
    co_return message;
  }

  // Nobody has taken them.
  Task<void> take_back() {
    if (!given_up_) co_return;
    daemon_.options().hold_pid_file(true);
    {
      const auto change = co_await daemon_.graph().change();
      co_await let_go();
    }
    // What is not there any more must not take the rest with it.
    const Complaint complain = [this](const Error& error) {
      daemon_.context().warn("after a restart that failed: " + error.message());
    };
    if (daemon_.journal() != nullptr) co_await attempt(daemon_.journal()->open(true), complain);
    if (daemon_.graph().nodes().empty()) co_await restore_nodes(daemon_, nodes_, complain);
    co_await resume_jobs(daemon_, jobs_, !flushed_, complain);
    co_await restore_exports(daemon_, exports_, complain);
    daemon_.graph().keep_unused(false);
    daemon_.mute_jobs(false);
  }

 private:
  // A node that is there for an export alone, such as the overlay of a snapshot, is one of those to
  // be opened again.
  Task<void> hold_exported() {
    const auto change = co_await daemon_.graph().change();
    std::vector<NodePtr> exported;
    daemon_.exports().each([&](const LiveExport& one) { exported.push_back(one.root()->node()); });
    for (const NodePtr& node : exported) {
      NodeUse use;
      use.user = "a restart";
      use.allows_inactive = true;
      RootPtr held = co_await daemon_.graph().attach(node, std::move(use));
      held_.push_back(std::move(held));
    }
  }
  // The graph's lock is held.
  Task<void> let_go() {
    while (!held_.empty()) {
      const RootPtr held = std::move(held_.back());
      held_.pop_back();
      co_await daemon_.graph().detach(held);
    }
  }

  Daemon& daemon_;
  std::vector<RootPtr> held_;
  bool given_up_ = false;
  bool flushed_ = false;  // what jobs have copied is in its place
  Value exports_ = Value::object();
  Value nodes_ = Value::object();
  Value jobs_ = Value::array();
};

// The disks are free when it is gone, whatever it has done.
Task<void> end_process(int pid) {
  ::kill(pid, SIGKILL);
  while (::waitpid(pid, nullptr, WNOHANG) == 0) co_await sleep_for(5ms);
}

Task<void> hand_over(Daemon& daemon, Link& link, Value first, DiskHandover& disks, int pid) {
  co_await link.receive("started", kStartTime);
  co_await link.send("prepare", std::move(first));
  co_await link.receive("prepared", kStartTime);
  Value state = co_await disks.give_up();
  co_await link.send("open", std::move(state));
  co_await link.receive("opened", kOpenTime);
  // From the main process, as the manager knows it: notices of others do not count.
  daemon.options().manager.tell("MAINPID=" + std::to_string(pid));
  co_await link.send("serve");
}

}  // namespace

Task<Value> restart(Daemon& daemon) {
  if (!daemon.options().start_successor)
    throw Error(ErrorKind::kUnsupported, "this program cannot be restarted");
  check_jobs(daemon);
  {
    const auto change = co_await daemon.graph().change();
    check_recipes(daemon.graph());
    check_files(daemon.graph());
  }
  std::vector<int> descriptors;
  Value first = first_message(daemon, descriptors);
  SuccessorProcess process = daemon.options().start_successor(descriptors);
  Link link(std::move(process.link));
  DiskHandover disks(daemon);
  daemon.chardevs().hold(true);
  daemon.sockets().keep(true);
  std::exception_ptr error;
  try {
    co_await hand_over(daemon, link, std::move(first), disks, process.pid);
  } catch (const Error&) {
    error = std::current_exception();
  }
  if (error) {
    co_await end_process(process.pid);
    co_await disks.take_back();
    daemon.sockets().keep(false);
    daemon.chardevs().hold(false);
    std::rethrow_exception(error);
  }
  daemon.leave_to_another();
  co_return Value::object();
}

void RestartSignal::stop() {
  stopping_ = true;
  if (descriptor_ >= 0) wake_waits(descriptor_);
}

Task<void> RestartSignal::serve() {
  while (!stopping_) {
    co_await await_ready(descriptor_, POLLIN);
    uint64_t count = 0;
    if (stopping_ || ::read(descriptor_, &count, sizeof count) != sizeof count) continue;
    std::string failure;
    try {
      co_await daemon_.execute(kRestartCommand, Value::object(), Form::kJson);
    } catch (const Error& error) {
      failure = error.message();
    }
    if (!failure.empty()) daemon_.options().report("The daemon was not restarted: " + failure);
  }
}

}  // namespace cairn::daemon
