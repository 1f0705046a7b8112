// src/daemon: a running block layer that is spoken to in QMP, the language of qemu-storage-daemon.
// It translates: nodes are in src/block/graph, jobs in src/job/live, exports in src/export; what a
// command may be given is in schema/, what it does in commands/. Includes everything below, knows
// no command line.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "async/async.h"
#include "base/value.h"
#include "block/context.h"
#include "block/graph/graph.h"
#include "daemon/chardev/chardev.h"
#include "daemon/config.h"
#include "daemon/event_limit.h"
#include "daemon/event_log.h"
#include "daemon/exports.h"
#include "daemon/handover/restart.h"
#include "daemon/job_recipes.h"
#include "daemon/listening_sockets.h"
#include "daemon/metrics/metrics.h"
#include "daemon/nbd_service.h"
#include "daemon/schema/schema.h"
#include "daemon/service_manager.h"
#include "job/live/jobs.h"
#include "job/live/progress.h"

namespace cairn::daemon {

class JobJournal;
class Monitor;

struct DaemonOptions {
  StandardStreams streams;
  ListeningSockets sockets;
  ServiceManager manager;
  std::shared_ptr<EventLog> log = {};  // null: nobody wants it
  // A line for the program's standard output, without its end.
  std::function<void(std::string_view)> show = [](std::string_view) {};
  // A line for the operator, without its end.
  std::function<void(std::string_view)> report = [](std::string_view) {};
  // Null: restart() is not offered.
  StartSuccessor start_successor = nullptr;
  // With false the file with the number of the process is another process's affair; with true it is
  // that of this one again. Throws what the system says.
  std::function<void(bool)> hold_pid_file = [](bool) {};
  // The end takes too long: something that cannot be ended is waited for.
  std::function<void()> overdue = [] {};
};

// Everything that belongs to one running daemon. It lives on one worker, on which all commands run,
// one at a time; emit() is for any thread.
class Daemon {
 public:
  // On that worker. A request to STOP ends the daemon.
  Daemon(Context& context, CancelSource& stop, DaemonOptions options);
  ~Daemon();
  Daemon(const Daemon&) = delete;

  Context& context() const { return context_; }
  const DaemonOptions& options() const { return options_; }
  ListeningSockets& sockets() { return options_.sockets; }
  Chardevs& chardevs() { return chardevs_; }
  Graph& graph() { return graph_; }
  live::Jobs& jobs() { return jobs_; }
  NbdService& nbd() { return nbd_; }
  Exports& exports() { return exports_; }
  MetricsService& metrics() { return metrics_; }
  CancelSource& stop() { return stop_; }
  // Nanoseconds since 1970.
  uint64_t started_at() const { return started_at_; }

  // True when there is a command NAME.
  static bool knows(std::string_view name);
  // Runs the command NAME with ARGUMENTS, which are in FORM and are checked first. Throws QmpError
  // when there is no such command, and what the command throws.
  Task<Value> execute(std::string name, Value arguments, Form form);
  // Sends an event to all clients that have negotiated; what may come with every request is held
  // back (EventLimit). From any thread.
  void emit(std::string_view event, Value data);

  // Serves the clients of the chardev of that id, from run() on, or at once when it runs. Throws
  // kInvalid.
  void add_monitor(const std::string& chardev, bool pretty);
  // A list of {chardev, pretty}.
  Value describe_monitors() const;
  JobRecipes& job_recipes() { return job_recipes_; }
  // Keeps the jobs in the file PATH from now on. Once, and before there are nodes or jobs; throws
  // as JobJournal::open().
  Task<void> keep_jobs(std::string path, bool from_other);
  // Null: nobody keeps them.
  JobJournal* journal() const { return journal_.get(); }
  live::ProgressStorePtr progress_store() const;
  // With ON, jobs have no events.
  void mute_jobs(bool on) { jobs_muted_ = on; }
  // What configuration files said that was done.
  std::vector<LineStep>& sections() { return sections_; }
  // Another process is the daemon: this one ends, and leaves everything that has a name to that.
  void leave_to_another();
  // SAY is called when everything but the monitors has ended.
  void add_last_word(std::function<void()> say) { last_words_.push_back(std::move(say)); }

  // Starts TASK, which must not throw, on the daemon's worker; shut_down() waits for it.
  void spawn(Task<void> task) { tasks_.spawn(std::move(task)); }

  // Serves the monitors until the end is asked for. Once, when all is set up.
  Task<void> run();
  // Ends everything: exports, jobs, nodes, and at last the monitors, whose clients get what was to
  // be said. Once, before the daemon goes. Throws nothing.
  Task<void> shut_down();

 private:
  Task<void> watch(Nap& nap);
  void send(const Value& event);
  Task<void> close_all();
  void log_command(const std::string& name, const Value& arguments, const Error* error);
  void log_event(std::string_view event, const Value& data);
  Context& context_;
  CancelSource& stop_;
  DaemonOptions options_;
  Mutex turn_;  // commands run one at a time
  bool ending_ = false;
  bool running_ = false;  // monitors that come are served
  Chardevs chardevs_;
  Graph graph_;
  live::Jobs jobs_;
  NbdService nbd_;
  Exports exports_;
  MetricsService metrics_;
  std::vector<LineStep> sections_;
  JobRecipes job_recipes_;
  std::shared_ptr<JobJournal> journal_;  // null: jobs end with the process
  std::atomic<bool> jobs_muted_{false};
  bool left_ = false;  // to another process
  const uint64_t started_at_;
  TaskGroup tasks_;
  std::mutex mutex_;  // of the list below, and of the order of what is sent
  std::vector<std::unique_ptr<Monitor>> monitors_;
  std::vector<std::function<void()>> last_words_;
  EventLimit limit_;
  Nap alive_;  // sends the notices that the daemon is alive
  TaskGroup serving_;
};

}  // namespace cairn::daemon
