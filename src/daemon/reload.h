#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "daemon/config.h"
#include "daemon/daemon.h"

namespace cairn::daemon {

// What the sections of configuration files that are read again mean for a daemon that has done what
// they said before.
struct ReloadPlan {
  std::vector<LineStep> added;
  std::vector<LineStep> removed;
  // Old and new, under the same name. Nodes that can be opened again with other options, and the
  // rest, which goes and comes back.
  std::vector<std::pair<LineStep, LineStep>> reopened, replaced;
};

// Reads the configuration files of a daemon again when a descriptor says so, and does what differs.
// Nothing is changed where it can be foreseen that not all of it is possible, or a new object or
// node cannot be made. What fails later is as before, and the rest is done; the next reload tries
// what differs yet. On the daemon's worker.
class Reloader {
 public:
  // What FILES said is in Daemon::sections(). DESCRIPTOR is an eventfd, which stays open.
  Reloader(Daemon& daemon, std::vector<std::string> files, int descriptor);

  // Until stop(). Throws nothing: what happens is reported.
  Task<void> serve();
  void stop();

 private:
  Task<void> reload();
  ReloadPlan compare(const std::vector<LineStep>& wanted) const;
  Task<void> choose_reopened(ReloadPlan& plan);
  Task<void> check(const ReloadPlan& plan);
  void check_moved(const ReloadPlan& plan);
  Task<void> check_users(const ReloadPlan& plan);
  Task<void> add_first(const ReloadPlan& plan);
  Task<void> take_away(const ReloadPlan& plan);
  Task<void> bring(const ReloadPlan& plan, const std::vector<LineStep>& wanted);
  Task<void> bring_back(const ReloadPlan& plan, const LineStep& step);
  Task<void> run_step(LineStep step);
  Task<void> undo_step(LineStep step);
  void done(const LineStep& step, bool there, std::string_view what);

  Daemon& daemon_;
  const std::vector<std::string> files_;
  std::vector<LineStep>& applied_;
  const int descriptor_;
  bool stopping_ = false;
};

}  // namespace cairn::daemon
