#include "daemon/handover/state.h"

#include <algorithm>
#include <charconv>

#include "block/graph/recipes.h"
#include "block/throttle_group.h"
#include "daemon/chardev/types.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/handover/fields.h"
#include "daemon/journal/job_journal.h"
#include "daemon/objects.h"
#include "job/live/job_filter.h"

namespace cairn::daemon {
namespace {

// --- objects ---

Value capture_object(const Objects::Entry& entry) {
  Options properties = entry.properties;
  if (const auto group = std::dynamic_pointer_cast<ThrottleGroup>(entry.object))
    group->limits().store(properties);
  Value one = Value::object();
  one.set("type", entry.type->name);
  one.set("properties", fields_of(properties));
  return one;
}

void restore_object(Daemon& daemon, const Value& one) {
  const std::string name = text_of(one, "type");
  const ObjectType* type = find_object_type(name);
  if (type == nullptr) invalid("invalid object type: " + name);
  daemon.context().add_object(*type, options_in(member_of(one, "properties")));
}

// --- character devices ---

// A file is continued, and no client is waited for.
Value backend_again(const Chardev& device) {
  const Value* given = device.backend().find("data");
  Value data = given == nullptr ? Value::object() : *given;
  if (device.type() == "file") data.set("append", true);
  if (device.type() == "pty") data.set(kReplacesLink, true);
  if (data.find("logfile") != nullptr) data.set("logappend", true);
  if (device.type() == "socket" && flag_of(data, "server", true)) data.set("wait", false);
  Value backend = Value::object();
  backend.set("type", member_of(device.backend(), "type"));
  backend.set("data", std::move(data));
  return backend;
}

// --- the sections of configuration files ---

Value section_value(const LineStep& step) {
  Value one = Value::object();
  one.set("option", step.option);
  one.set("argument", step.argument);
  one.set("where", step.where);
  one.set("id", step.id);
  return one;
}

LineStep section_of(const Value& one) {
  return {.option = text_of(one, "option"),
          .argument = text_of(one, "argument"),
          .where = text_of(one, "where"),
          .id = text_of(one, "id")};
}

// --- nodes ---

// Of a name that was made; 0 for others.
uint32_t number_of_node(std::string_view name) {
  constexpr std::string_view kPrefix = "#block";
  uint32_t number = 0;
  if (name.starts_with(kPrefix))
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), number);
  return number;
}

// --- dirty bitmaps ---

Value capture_bitmap(const Node& node, const DirtyBitmap& bitmap) {
  Value one = Value::object();
  one.set("node", node.node_name());
  one.set("name", bitmap.name());
  one.set("granularity", bitmap.granularity());
  one.set("enabled", bitmap.enabled());
  one.set("dirty", runs_of(bitmap));
  return one;
}

void restore_bitmap(Daemon& daemon, const Value& one) {
  const NodePtr node = daemon.graph().get(text_of(one, "node"));
  const auto bitmap = std::make_shared<DirtyBitmap>(text_of(one, "name"), node->length(),
                                                    unsigned_in(member_of(one, "granularity")));
  bitmap->set_enabled(flag_of(one, "enabled", true));
  mark_runs(*bitmap, elements_of(one, "dirty"));
  node->bitmaps().add(bitmap);
}

// --- exports ---

// The filter of the last job that works on the node NAME, where there is one.
std::string above_jobs(Daemon& daemon, std::string name) {
  NodePtr node = daemon.graph().get(name);
  for (bool higher = true; higher;) {
    higher = false;
    for (Node* parent : daemon.graph().parents(*node)) {
      const auto* filter = dynamic_cast<const live::JobFilter*>(parent);
      if (higher || filter == nullptr || filter->below() != node) continue;
      node = parent->shared_from_this();
      higher = true;
    }
  }
  return node->node_name();
}

Value capture_export(Value arguments, NodePtr node) {
  Value one = Value::object();
  while (const auto* filter = dynamic_cast<const live::JobFilter*>(node.get())) {
    one.set("above-jobs", true);
    node = filter->below();
  }
  // It may have moved to another one.
  arguments.set("node-name", node->node_name());
  one.set("arguments", std::move(arguments));
  return one;
}

Task<void> run_command(Daemon& daemon, std::string name, Value arguments) {
  co_await find_command(name)->run(daemon, std::move(arguments));
}

Task<void> restore_export(Daemon& daemon, Value fields) {
  Value arguments = member_of(fields, "arguments");
  if (flag_of(fields, "above-jobs", false))
    arguments.set("node-name", above_jobs(daemon, text_of(arguments, "node-name")));
  co_await daemon.exports().add(std::move(arguments));
}

}  // namespace

Value capture_front(Daemon& daemon) {
  Value objects = Value::array();
  for (const Objects::Entry& entry : daemon.context().objects().list())
    objects.push_back(capture_object(entry));
  Value chardevs = Value::array();
  for (const auto& device : daemon.chardevs().all()) {
    Value one = Value::object();
    one.set("id", device->id());
    one.set("backend", backend_again(*device));
    chardevs.push_back(std::move(one));
  }
  Value sections = Value::array();
  for (const LineStep& step : daemon.sections()) sections.push_back(section_value(step));
  Value front = Value::object();
  front.set("objects", std::move(objects));
  front.set("chardevs", std::move(chardevs));
  front.set("monitors", daemon.describe_monitors());
  if (const auto address = daemon.metrics().address()) front.set("metrics", address->to_value());
  front.set("sections", std::move(sections));
  if (daemon.journal() != nullptr) front.set("state", daemon.journal()->path());
  return front;
}

Task<void> restore_front(Daemon& daemon, Value front) {
  for (const Value& one : elements_of(front, "objects")) restore_object(daemon, one);
  for (const Value& one : elements_of(front, "chardevs"))
    co_await daemon.chardevs().add(text_of(one, "id"), member_of(one, "backend"), daemon.stop());
  for (const Value& one : elements_of(front, "monitors"))
    daemon.add_monitor(text_of(one, "chardev"), flag_of(one, "pretty", false));
  if (const Value* address = front.find("metrics"))
    co_await daemon.metrics().start(SocketAddress::from_options(Options::from_value(*address)));
  for (const Value& one : elements_of(front, "sections"))
    daemon.sections().push_back(section_of(one));
}

Value capture_exports(Daemon& daemon) {
  Value state = Value::object();
  if (daemon.nbd().running()) state.set("nbd-server", daemon.nbd().options().arguments);
  Value exports = Value::array();
  daemon.exports().each_with_arguments([&](const LiveExport& one, const Value& arguments) {
    exports.push_back(capture_export(arguments, one.root()->node()));
  });
  state.set("exports", std::move(exports));
  return state;
}

Value capture_nodes(Daemon& daemon) {
  Value recipes = Value::array();
  for (const NodeRecipe& recipe : node_recipes(daemon.graph()))
    recipes.push_back(fields_of(recipe));
  Value bitmaps = Value::array();
  Value thresholds = Value::array();
  for (const NodePtr& node : daemon.graph().nodes()) {
    for (const DirtyBitmapPtr& bitmap : node->bitmaps().list())
      if (!bitmap->persistent() && !bitmap->name().empty())
        bitmaps.push_back(capture_bitmap(*node, *bitmap));
    if (const uint64_t threshold = node->bitmaps().threshold(); threshold != 0) {
      Value one = Value::object();
      one.set("node-name", node->node_name());
      one.set("write-threshold", static_cast<int64_t>(threshold));
      thresholds.push_back(std::move(one));
    }
  }
  Value state = Value::object();
  state.set("nodes", std::move(recipes));
  state.set("bitmaps", std::move(bitmaps));
  state.set("thresholds", std::move(thresholds));
  return state;
}

Task<void> attempt(Task<void> work, const Complaint& complain) {
  try {
    co_await std::move(work);
  } catch (const Error& error) {
    if (!complain) throw;
    complain(error);
  }
}

Task<void> restore_nodes(Daemon& daemon, Value nodes, Complaint complain) {
  uint32_t last = 0;
  for (const Value& one : elements_of(nodes, "nodes"))
    last = std::max(last, number_of_node(text_of(one, "name")));
  // No name that is made later is one of them.
  while (last != 0 && number_of_node(daemon.context().next_node_name()) < last) continue;
  {
    const auto change = co_await daemon.graph().change();
    daemon.graph().keep_unused(true);
    for (const Value& one : elements_of(nodes, "nodes"))
      co_await attempt(daemon.graph().open_again(recipe_in(one)), complain);
    for (const Value& one : elements_of(nodes, "bitmaps"))
      if (daemon.graph().find(text_of(one, "node")) != nullptr) restore_bitmap(daemon, one);
  }
  for (const Value& one : elements_of(nodes, "thresholds"))
    co_await attempt(run_command(daemon, "block-set-write-threshold", one), complain);
}

Task<void> restore_exports(Daemon& daemon, Value exports, Complaint complain) {
  if (const Value* server = exports.find("nbd-server"))
    co_await attempt(run_command(daemon, "nbd-server-start", *server), complain);
  for (const Value& one : elements_of(exports, "exports"))
    co_await attempt(restore_export(daemon, one), complain);
  const auto change = co_await daemon.graph().change();
  daemon.graph().keep_unused(false);
}

}  // namespace cairn::daemon
