#include "daemon/job_arguments.h"

#include "block/capabilities/backing_link.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "job/live/layers.h"

namespace cairn::daemon {

using live::JobEvent;

namespace {

std::string_view name_of(JobEvent::Kind kind) {
  switch (kind) {
    case JobEvent::Kind::kStatus:
      return "JOB_STATUS_CHANGE";
    case JobEvent::Kind::kReady:
      return "BLOCK_JOB_READY";
    case JobEvent::Kind::kPending:
      return "BLOCK_JOB_PENDING";
    case JobEvent::Kind::kCompleted:
      return "BLOCK_JOB_COMPLETED";
    case JobEvent::Kind::kCancelled:
      return "BLOCK_JOB_CANCELLED";
    case JobEvent::Kind::kError:
      break;
  }
  return "BLOCK_JOB_ERROR";
}

Value data_of(const JobEvent& event) {
  Value data = Value::object();
  switch (event.kind) {
    case JobEvent::Kind::kStatus:
      data.set("status", to_string(event.status));
      data.set("id", event.id);
      break;
    case JobEvent::Kind::kPending:
      data.set("type", to_string(event.type));
      data.set("id", event.id);
      break;
    case JobEvent::Kind::kError:
      data.set("device", event.id);
      data.set("operation", event.side == live::JobSide::kRead ? "read" : "write");
      data.set("action", to_string(event.action));
      break;
    case JobEvent::Kind::kReady:
    case JobEvent::Kind::kCompleted:
    case JobEvent::Kind::kCancelled:
      data.set("device", event.id);
      data.set("len", event.total);
      data.set("offset", event.done);
      data.set("speed", event.speed);
      data.set("type", to_string(event.type));
      if (event.error) data.set("error", *event.error);
      break;
  }
  return data;
}

}  // namespace

live::JobListener job_events(Daemon& daemon) {
  return [&daemon](const JobEvent& event) { daemon.emit(name_of(event.kind), data_of(event)); };
}

live::JobOptions job_options(const Value& arguments) {
  return {.id = text_of(arguments, "job-id"),
          .speed = number_of(arguments, "speed", 0),
          .auto_finalize = flag_of(arguments, "auto-finalize", true),
          .auto_dismiss = flag_of(arguments, "auto-dismiss", true)};
}

live::OnError on_error(const Value& arguments, std::string_view name) {
  const std::string word = text_of(arguments, name);
  if (word == "ignore") return live::OnError::kIgnore;
  if (word == "enospc") return live::OnError::kEnospc;
  if (word == "stop") return live::OnError::kStop;
  if (word == "auto") return live::OnError::kAuto;
  return live::OnError::kReport;
}

NodePtr device_node(const Graph& graph, const std::string& name) {
  NodePtr node = graph.find(name);
  if (node == nullptr)
    throw Error(ErrorKind::kNotFound,
                "Cannot find device='" + name + "' nor node-name='" + name + "'");
  return node;
}

void check_filter_name(Graph& graph, const std::string& name, const char* context) {
  if (name.empty()) return;
  try {
    graph.check_new_name(name);
  } catch (Error& error) {
    if (context == nullptr) throw;
    throw error.context(context);
  }
}

void check_root(const Graph& graph, const Node& node) {
  if (!graph.parents(node).empty()) invalid("Need a root block node");
}

NodePtr find_file_in_chain(const Node& top, const std::string& name) {
  std::string stored;
  for (const Node* at = &top; at != nullptr;) {
    if (at->backing() != nullptr) stored = backing_name_of(*at);
    Node* below = live::next_below(*at);
    const bool layer = at->backing() != nullptr;
    at = below;
    if (layer && (stored == name || live::through_filters(*below).filename() == name))
      return below->shared_from_this();
  }
  return nullptr;
}

}  // namespace cairn::daemon
