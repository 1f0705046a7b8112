// src/daemon/handover: a daemon that is replaced by another process, its successor, while clients
// only see a connection end. What there is to be taken over is in state.h, how the two talk in
// link.h, what each of them does in restart.h and succession.h. May include all of src/daemon.
#pragma once

#include <functional>

#include "async/task.h"
#include "base/error.h"
#include "base/value.h"

namespace cairn::daemon {

class Daemon;

// What a daemon has apart from its disks: objects, character devices, monitors, where metrics are
// served, the sections of its configuration files. It has secrets, and goes to no disk.
Value capture_front(Daemon& daemon);
// Makes the same in a daemon that has nothing yet; clients are served by Daemon::run(). Throws what
// cannot be made.
Task<void> restore_front(Daemon& daemon, Value front);

// The exports and the NBD server, which must be there to be seen.
Value capture_exports(Daemon& daemon);
// The nodes with what is kept of them in memory alone: dirty bitmaps, thresholds. The graph's lock
// is held, and nobody uses them. Throws as
// check_recipes().
Value capture_nodes(Daemon& daemon);
// What of a daemon could not be had again; the rest is. Null: it is thrown.
using Complaint = std::function<void(const Error& error)>;
Task<void> attempt(Task<void> work, const Complaint& complain);

// Opens the nodes again. Throws what opening throws; what was opened stays, and so does what nobody
// uses, until restore_exports().
Task<void> restore_nodes(Daemon& daemon, Value nodes, Complaint complain = nullptr);
Task<void> restore_exports(Daemon& daemon, Value exports, Complaint complain = nullptr);

}  // namespace cairn::daemon
