#pragma once

#include <string>
#include <string_view>

#include "base/value.h"
#include "block/graph/action.h"
#include "block/graph/graph.h"
#include "job/live/backup.h"
#include "job/live/live.h"
#include "job/live/mirror.h"

// What the commands that begin jobs have in common.
namespace cairn::daemon {

class Daemon;

// Gives a job's events to the clients of the daemon.
live::JobListener job_events(Daemon& daemon);

live::JobOptions job_options(const Value& arguments);
live::OnError on_error(const Value& arguments, std::string_view name);
// The jobs that the arguments of blockdev-backup, drive-backup and so on describe, less the nodes.
// STORE keeps what they have left to do; null: nobody does. Throw what is wrong with the arguments.
std::shared_ptr<live::BackupJob> backup_job(Daemon& daemon, const Value& arguments, NodePtr source,
                                            NodePtr target, live::ProgressStorePtr store = nullptr);
std::shared_ptr<live::MirrorJob> mirror_job(Daemon& daemon, const Value& arguments, NodePtr source,
                                            NodePtr target, live::ProgressStorePtr store = nullptr);
live::MirrorSync mirror_sync(const Node& source, const Value& arguments);
// Makes, or opens, the file that the argument "target" of drive-backup names. The graph's lock is
// held.
Task<NodePtr> backup_file(Daemon& daemon, Value arguments, NodePtr source);
// A step that begins a backup, in TOGETHER with the jobs of other steps. TO_FILE: the target is the
// name of a file, as in drive-backup. GROUP: as in JobRecipes.
std::unique_ptr<GraphAction> backup_action(Daemon& daemon, const Value& arguments, bool to_file,
                                           std::shared_ptr<live::Transaction> together,
                                           std::string group);
// The node that a command calls a device, as there are none here. Throws "Cannot find device=…".
NodePtr device_node(const Graph& graph, const std::string& name);
// Throws where NAME, of the filter of a job, is neither empty nor that of a new node; the error
// begins with CONTEXT.
void check_filter_name(Graph& graph, const std::string& name, const char* context = nullptr);
// Throws "Need a root block node" where other nodes are above NODE.
void check_root(const Graph& graph, const Node& node);
// The node below TOP in its chain that has this file name: as opened, or as the image above stores
// it. Null when there is none.
NodePtr find_file_in_chain(const Node& top, const std::string& name);

}  // namespace cairn::daemon
