#include "daemon/handover/succession.h"

#include <unistd.h>

#include "base/error.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/handover/fields.h"
#include "daemon/handover/jobs.h"
#include "daemon/handover/state.h"

namespace cairn::daemon {
namespace {

using namespace std::chrono_literals;

// What the other daemon may take to answer its clients and to close its disks.
constexpr auto kCloseTime = 120s;
constexpr auto kAnswerTime = 30s;

}  // namespace

void Succession::take_sockets(Daemon& daemon, const Value& sockets) {
  const auto& all = *sockets.get_if<Value::Array>();
  if (all.size() > descriptors_.size())
    invalid("fewer sockets were handed over than the other daemon says");
  for (size_t i = 0; i < all.size(); ++i) {
    const std::string name = text_of(all[i], "name");
    if (flag_of(all[i], "owned", false))
      daemon.sockets().take_over(name, Socket(descriptors_[i]));
    else
      daemon.sockets().add(name, descriptors_[i]);
  }
}

Task<void> Succession::take_over(Daemon& daemon) {
  // Until then they are those of the other one.
  daemon.sockets().keep(true);
  co_await link_.send("started");
  const Value first = co_await link_.receive("prepare", kAnswerTime);
  elements_of(first, "sockets");
  take_sockets(daemon, member_of(first, "sockets"));
  co_await restore_front(daemon, member_of(first, "front"));
  co_await link_.send("prepared");
  const Value disks = co_await link_.receive("open", kCloseTime);
  if (const std::string state = text_of(member_of(first, "front"), "state"); !state.empty())
    co_await daemon.keep_jobs(state, true);
  co_await restore_nodes(daemon, member_of(disks, "nodes"));
  co_await resume_jobs(daemon, member_of(disks, "jobs"), false);
  co_await restore_exports(daemon, member_of(disks, "exports"));
}

Task<void> Succession::finish(Daemon& daemon) {
  try {
    co_await link_.send("opened");
    co_await link_.receive("serve", kAnswerTime);
  } catch (const Error&) {
    // Nobody else serves any more.
  }
  daemon.sockets().keep(false);
}

Task<void> Succession::give_up(Daemon& daemon, std::string reason) {
  daemon.leave_to_another();
  Value message = Value::object();
  message.set(kFailedReason, std::move(reason));
  try {
    co_await link_.send(kFailedStep, std::move(message));
  } catch (const Error&) {
    // It has ended as well.
  }
}

}  // namespace cairn::daemon
