#include "async/finally.h"
#include "block/capabilities/backing_link.h"
#include "block/driver.h"
#include "block/graph/copy_file.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/job_arguments.h"

// Jobs that copy a disk to a file, which they make or open themselves.
namespace cairn::daemon {
namespace {

CopyFile copy_file(Daemon& daemon, const Value& arguments, NodePtr source) {
  CopyFile request;
  request.source = std::move(source);
  request.file = text_of(arguments, "target");
  request.format = text_of(arguments, "format");
  request.node_name = text_of(arguments, "node-name");
  request.existing = text_of(arguments, "mode") == "existing";
  request.announce = daemon.options().show;
  return request;
}

// The job that ARGUMENTS began can be begun again with COMMAND, as its target is the node TARGET.
void note_job(Daemon& daemon, const std::string& command, const Value& arguments,
              const std::string& target, const std::string& group = {}) {
  Value again = Value::object();
  for (const auto& [name, value] : *arguments.get_if<Value::Object>())
    if (name != "format" && name != "mode" && name != "node-name") again.set(name, value);
  again.set("target", target);
  daemon.job_recipes().note(command, std::move(again),
                            daemon.jobs().find(text_of(arguments, "job-id")), group);
}

// Begins a job whose target is a file, with MAKE, which gets the target. The target goes when the
// job cannot be made.
template <typename Make>
Task<void> launch_to_file(Daemon& daemon, NodePtr target, Make make) {
  co_await on_failure(
      [&]() -> Task<void> {
        auto job = make(std::move(target));
        co_await live::launch(daemon.jobs(), std::move(job));
      },
      [&] { return daemon.graph().sweep(); });
}

Task<Value> drive_mirror(Daemon& daemon, Value arguments) {
  Graph& graph = daemon.graph();
  const auto change = co_await graph.change();
  NodePtr source = device_node(graph, text_of(arguments, "device"));
  if (arguments.find("replaces") != nullptr && arguments.find("node-name") == nullptr)
    invalid("a node-name must be provided when replacing a named node of the graph");
  check_root(graph, *source);
  CopyFile request = copy_file(daemon, arguments, source);
  request.unmap = flag_of(arguments, "unmap", true);
  const live::MirrorSync sync = mirror_sync(*source, arguments);
  // The target gets what is below the source when it takes over, if anything.
  request.open_backing = false;
  if (sync != live::MirrorSync::kFull)
    request.below = sync == live::MirrorSync::kNone ? CopyFile::Below::kSource
                                                    : CopyFile::Below::kSourceBacking;
  NodePtr target = co_await open_copy_file(graph, std::move(request));
  const std::string name = target->node_name();
  co_await launch_to_file(daemon, std::move(target), [&](NodePtr opened) {
    return mirror_job(daemon, arguments, source, std::move(opened), daemon.progress_store());
  });
  note_job(daemon, "blockdev-mirror", arguments, name);
  co_return Value::object();
}

Task<Value> drive_backup(Daemon& daemon, Value arguments) {
  Graph& graph = daemon.graph();
  const auto change = co_await graph.change();
  NodePtr source = device_node(graph, text_of(arguments, "device"));
  NodePtr target = co_await backup_file(daemon, arguments, source);
  const std::string name = target->node_name();
  co_await launch_to_file(daemon, std::move(target), [&](NodePtr opened) {
    return backup_job(daemon, arguments, source, std::move(opened), daemon.progress_store());
  });
  note_job(daemon, "blockdev-backup", arguments, name);
  co_return Value::object();
}

class BackupAction final : public GraphAction {
 public:
  BackupAction(Daemon& daemon, Value arguments, bool to_file,
               std::shared_ptr<live::Transaction> together, std::string group)
      : daemon_(daemon),
        arguments_(std::move(arguments)),
        to_file_(to_file),
        together_(std::move(together)),
        group_(std::move(group)) {}

  Task<void> prepare() override {
    Graph& graph = daemon_.graph();
    NodePtr source = device_node(graph, text_of(arguments_, "device"));
    NodePtr target;
    if (to_file_)
      target = co_await backup_file(daemon_, arguments_, source);
    else
      target = device_node(graph, text_of(arguments_, "target"));
    co_await on_failure([&] { return begin(std::move(source), std::move(target)); },
                        [&] { return graph.sweep(); });
  }
  Task<void> commit() override {
    daemon_.jobs().start(job_);
    note_job(daemon_, "blockdev-backup", arguments_, target_, group_);
    co_return;
  }
  Task<void> abort() override { co_await live::launch_undo(daemon_.jobs(), job_); }

 private:
  Task<void> begin(NodePtr source, NodePtr target) {
    target_ = target->node_name();
    job_ = backup_job(daemon_, arguments_, std::move(source), std::move(target),
                      daemon_.progress_store());
    co_await live::launch_prepare(daemon_.jobs(), job_, together_);
  }

  Daemon& daemon_;
  const Value arguments_;
  const bool to_file_;
  const std::shared_ptr<live::Transaction> together_;
  const std::string group_;
  std::string target_;  // the name of the node
  std::shared_ptr<live::BackupJob> job_;
};

constexpr Command kDriveJobCommands[] = {
    {"drive-mirror", drive_mirror},
    {"drive-backup", drive_backup},
};

}  // namespace

Task<NodePtr> backup_file(Daemon& daemon, Value arguments, NodePtr source) {
  Graph& graph = daemon.graph();
  const std::string sync = text_of(arguments, "sync");
  CopyFile request = copy_file(daemon, arguments, source);
  request.detect_zeroes = true;
  const bool none = sync == "none";
  request.open_backing = !none;
  if (none)
    request.below = CopyFile::Below::kSource;
  else if (sync == "top" && source->backing() != nullptr)
    request.below = CopyFile::Below::kSourceBacking;
  NodePtr target = co_await open_copy_file(graph, std::move(request));
  // What is not copied yet is in the source, which is open already.
  const bool over = none && target->driver().offers<BackingName>();
  if (over)
    co_await on_failure([&] { return graph.set_backing(target, source); },
                        [&]() -> Task<void> {
                          target.reset();
                          co_await graph.sweep();
                        });
  co_return target;
}

std::unique_ptr<GraphAction> backup_action(Daemon& daemon, const Value& arguments, bool to_file,
                                           std::shared_ptr<live::Transaction> together,
                                           std::string group) {
  return std::make_unique<BackupAction>(daemon, arguments, to_file, std::move(together),
                                        std::move(group));
}

std::span<const Command> drive_job_commands() { return kDriveJobCommands; }

}  // namespace cairn::daemon
