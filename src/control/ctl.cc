#include "base/size.h"
#include "cli/report.h"
#include "cli/verbs.h"
#include "control/control_tables.h"
#include "daemon/handover/restart.h"
#include "daemon/keyval.h"
#include "daemon/schema/schema.h"
#include "operation/control.h"

namespace cairn::control {
namespace {

using Words = std::vector<std::string>;

// A command of QMP, and how its result is shown to people; null: not at all.
struct ControlCall {
  std::string command;
  Value arguments = Value::object();
  void (*show)(const Session& session, const Value& result) = nullptr;
};

void show_result(const Session& session, const Value& result) {
  session.say(result.pretty() + "\n");
}

Value members(std::initializer_list<std::pair<const char*, Value>> all) {
  Value object = Value::object();
  for (const auto& [name, value] : all) object.set(name, value);
  return object;
}

// What `add` adds, as the options of the daemon of the same name take it.
ControlCall adding(const std::string& kind, const std::string& text) {
  struct Kind {
    std::string_view name, key, command;
  };
  constexpr Kind kKinds[] = {{"node", "driver", "blockdev-add"},
                             {"export", "type", "block-export-add"},
                             {"object", "qom-type", "object-add"}};
  for (const Kind& one : kKinds) {
    if (one.name != kind) continue;
    daemon::Keyval given = daemon::parse_keyval(text, one.key);
    const auto form = given.json ? daemon::Form::kJson : daemon::Form::kKeyval;
    const std::string_view type = daemon::Schema::get().find_command(one.command)->argument;
    return {std::string(one.command), daemon::checked_value(type, std::move(given.value), form)};
  }
  throw UsageError{"Expecting add node, add export or add object"};
}

ControlCall removing(const std::string& kind, const std::string& name, bool force) {
  if (kind == "node") return {"blockdev-del", members({{"node-name", name}})};
  if (kind == "object") return {"object-del", members({{"id", name}})};
  if (kind != "export") throw UsageError{"Expecting remove node, remove export or remove object"};
  return {"block-export-del", members({{"id", name}, {"mode", force ? "hard" : "safe"}})};
}

ControlCall job_call(const std::string& what, const std::string& id) {
  for (const char* known : {"pause", "resume", "cancel", "complete", "finalize", "dismiss"})
    if (what == known) return {"job-" + what, members({{"id", id}})};
  throw UsageError{
      "Expecting job pause, job resume, job cancel, job complete, job finalize or job dismiss"};
}

ControlCall raw_call(const std::string& text) {
  if (!text.starts_with('{')) return {text, Value::object(), show_result};
  const Value request = Value::parse(text);
  const Value* command = request.find("execute");
  const auto* name = command == nullptr ? nullptr : command->get_if<std::string>();
  if (name == nullptr) throw UsageError{"The request has no member \"execute\" with a name"};
  const Value* arguments = request.find("arguments");
  return {*name, arguments == nullptr ? Value::object() : *arguments, show_result};
}

// What each action takes, for who gives it something else.
constexpr std::pair<std::string_view, std::string_view> kForms[] = {
    {"jobs", "jobs alone"},
    {"nodes", "nodes alone"},
    {"exports", "exports alone"},
    {"restart", "restart alone"},
    {"watch", "watch alone"},
    {"add", "add node OPTIONS, add export OPTIONS or add object OPTIONS"},
    {"remove", "remove node NAME, remove export ID or remove object ID"},
    {"job", "job pause ID, or resume, cancel, complete, finalize or dismiss"},
    {"resize", "resize NODE SIZE"},
    {"snapshot", "snapshot NODE FILE NEW-NODE"},
    {"qmp", "qmp COMMAND or qmp '{\"execute\": ...}'"},
};

ControlCall call_of(const Words& words, bool force) {
  const std::string action = words.empty() ? "" : words[0];
  if (words.size() == 1) {
    if (action == "jobs") return {"query-jobs", Value::object(), show_jobs};
    if (action == "nodes")
      return {"query-named-block-nodes", members({{"flat", true}}), show_nodes};
    if (action == "restart") return {daemon::kRestartCommand, Value::object()};
    if (action == "exports") return {"query-block-exports", Value::object(), show_exports};
  }
  if (action == "qmp" && words.size() == 2) return raw_call(words[1]);
  if (action == "add" && words.size() == 3) return adding(words[1], words[2]);
  if (action == "remove" && words.size() == 3) return removing(words[1], words[2], force);
  if (action == "job" && words.size() == 3) return job_call(words[1], words[2]);
  if (action == "resize" && words.size() == 3) {
    uint64_t size = 0;
    if (parse_size(words[2], &size, INT64_MAX) != SizeError::kNone)
      throw UsageError{"'" + words[2] + "' is not a size"};
    return {"block_resize", members({{"node-name", words[1]}, {"size", size}})};
  }
  if (action == "snapshot" && words.size() == 4)
    return {"blockdev-snapshot-sync", members({{"node-name", words[1]},
                                               {"snapshot-file", words[2]},
                                               {"snapshot-node-name", words[3]},
                                               {"format", "qcow2"}})};
  for (const auto& [name, form] : kForms)
    if (name == action) throw UsageError{"Expecting " + std::string(form)};
  throw UsageError{
      "Expecting jobs, nodes, exports, add, remove, job, resize, snapshot, restart, qmp or watch"};
}

int run_ctl(Session& session, Arguments& arguments) {
  const Words& words = arguments.words();
  const auto socket = arguments.value(kControlSocket);
  if (words.empty()) call_of(words, false);  // says what there is
  if (!socket) throw UsageError{"--socket is missing: the control socket of the daemon"};
  if (words.size() == 1 && words[0] == "watch") {
    operation::watch_events(session.caller(), *socket,
                            [&](const Value& event) { print_event(session, event); });
    return 0;
  }
  const ControlCall call = call_of(words, arguments.has(kForce));
  const Value result =
      operation::run_command(session.caller(), *socket, call.command, call.arguments);
  if (session.json) {
    Value out = Value::object();
    out.set("result", result);
    print_report(session, out);
  } else if (call.show != nullptr) {
    call.show(session, result);
  }
  return 0;
}

}  // namespace

Verb ctl_verb() {
  return {
      .name = "ctl",
      .summary = "asks a running storage daemon, and commands it",
      .synopsis =
          "--socket ADDRESS jobs | nodes | exports | add node|export|object OPTIONS | "
          "remove node|export|object NAME | job pause|resume|cancel|complete|finalize|"
          "dismiss ID | resize NODE SIZE | snapshot NODE FILE NEW-NODE | restart | "
          "qmp REQUEST | watch",
      .flags = {{kControlSocket, "socket", "ADDRESS", "the daemon's QMP socket: PATH or HOST:PORT"},
                {kForce, "force", nullptr, "remove an export that a client has"},
                kOutputFlag},
      .run = run_ctl,
      .own = true};
}

}  // namespace cairn::control
