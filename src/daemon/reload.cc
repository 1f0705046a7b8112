#include "daemon/reload.h"

#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <new>

#include "base/error.h"
#include "block/driver.h"
#include "block/graph/reopen.h"
#include "daemon/commands/commands.h"
#include "daemon/keyval.h"
#include "daemon/line.h"
#include "job/live/job_filter.h"

namespace cairn::daemon {
namespace {

using Ids = std::set<std::string>;

// A section without a name is one of a kind, but for monitors, of which there may be many.
bool same_section(const LineStep& a, const LineStep& b) {
  return a.option == b.option && a.id == b.id &&
         (!a.id.empty() || a.option != "monitor" || a.argument == b.argument);
}

std::string title(const LineStep& step) {
  return step.option + (step.id.empty() ? "" : " '" + step.id + "'");
}

// The names of the sections OPTION that go, for good or for a moment.
Ids leaving(const ReloadPlan& plan, std::string_view option) {
  Ids ids;
  for (const LineStep& step : plan.removed)
    if (step.option == option) ids.insert(step.id);
  for (const auto& [before, after] : plan.replaced)
    if (before.option == option) ids.insert(before.id);
  return ids;
}

Value one_member(std::string_view name, const std::string& value) {
  Value object = Value::object();
  object.set(name, value);
  return object;
}

// Who ROOT is, for messages.
std::string user_of(Daemon& daemon, const RootPtr& root) {
  std::string user = root->use().user;
  daemon.exports().each([&](const LiveExport& one) {
    if (one.root() == root) user = "export '" + one.id() + "'";
  });
  return user;
}

[[noreturn]] void refuse(const LineStep& step, const std::string& why) {
  throw Error(ErrorKind::kLocked, step.where + ": " + why);
}

std::string exported_node(const LineStep& step) {
  return text_of(parse_keyval(step.argument, "type").value, "node-name");
}

// The disk that ONE shows, less the filters of jobs.
std::string shown_node(const LiveExport& one) {
  const Node* node = one.root()->node().get();
  while (const auto* filter = dynamic_cast<const live::JobFilter*>(node))
    node = filter->below().get();
  return node->node_name();
}

// What blockdev-reopen is given so that NODE, opened as BEFORE says, is as AFTER says. Throws where
// it cannot be.
Value reopen_options(const Node& node, const LineStep& before, const LineStep& after) {
  const Value old_options = parse_keyval(before.argument, "driver").value;
  const Value new_options = parse_keyval(after.argument, "driver").value;
  Value options = Value::object();
  for (const auto& [name, value] : *new_options.get_if<Value::Object>()) {
    const Node* child = node.child(name);
    const bool nested = value.is_object() && child != nullptr;
    const Value* old = old_options.find(name);
    if (nested && (old == nullptr || old->compact() != value.compact()))
      invalid("The " + name + " of the node differs");
    if (nested)
      options.set(name, child->node_name());
    else
      options.set(name, value);
  }
  for (const auto& [name, value] : *old_options.get_if<Value::Object>())
    if (value.is_object() && node.child(name) != nullptr && new_options.find(name) == nullptr)
      invalid("The " + name + " of the node differs");
  if (node.backing() != nullptr && options.find("backing") == nullptr)
    options.set("backing", node.backing()->node_name());
  return checked_value("BlockdevOptions", std::move(options), Form::kKeyval);
}

std::string reloading_notice() {
  struct timespec now {};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return "RELOADING=1\nMONOTONIC_USEC=" +
         std::to_string(static_cast<int64_t>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1000);
}

}  // namespace

Reloader::Reloader(Daemon& daemon, std::vector<std::string> files, int descriptor)
    : daemon_(daemon),
      files_(std::move(files)),
      applied_(daemon.sections()),
      descriptor_(descriptor) {}

void Reloader::stop() {
  stopping_ = true;
  wake_waits(descriptor_);
}

Task<void> Reloader::serve() {
  while (!stopping_) {
    co_await await_ready(descriptor_, POLLIN);
    uint64_t count = 0;
    if (stopping_ || ::read(descriptor_, &count, sizeof count) != sizeof count) continue;
    daemon_.options().manager.tell(reloading_notice());
    std::string outcome = "The configuration was read again";
    try {
      co_await reload();
    } catch (const Error& error) {
      outcome = "The configuration was not reloaded: " + error.message();
    } catch (const std::bad_alloc&) {
      outcome = "The configuration was not reloaded: out of memory";
    }
    daemon_.options().report(outcome);
    daemon_.options().manager.tell("READY=1\nSTATUS=" + outcome);
  }
}

Task<void> Reloader::reload() {
  std::vector<LineStep> wanted;
  for (const std::string& file : files_) {
    std::vector<LineStep> steps = read_config(file);
    std::move(steps.begin(), steps.end(), std::back_inserter(wanted));
  }
  ReloadPlan plan = compare(wanted);
  co_await choose_reopened(plan);
  co_await check(plan);
  co_await add_first(plan);
  co_await take_away(plan);
  co_await bring(plan, wanted);
  applied_ = std::move(wanted);
}

ReloadPlan Reloader::compare(const std::vector<LineStep>& wanted) const {
  ReloadPlan plan;
  for (const LineStep& step : wanted) {
    try {
      check_option(step.option, step.argument);
    } catch (Error& error) {
      throw error.context(step.where);
    }
    const auto before = std::find_if(applied_.begin(), applied_.end(),
                                     [&](const LineStep& one) { return same_section(one, step); });
    if (before == applied_.end())
      plan.added.push_back(step);
    else if (before->argument != step.argument)
      plan.replaced.emplace_back(*before, step);
  }
  for (const LineStep& step : applied_)
    if (std::none_of(wanted.begin(), wanted.end(),
                     [&](const LineStep& one) { return same_section(one, step); }))
      plan.removed.push_back(step);
  return plan;
}

// A node keeps its users where its options can be changed as they are.
Task<void> Reloader::choose_reopened(ReloadPlan& plan) {
  const auto change = co_await daemon_.graph().change();
  for (auto pair = plan.replaced.begin(); pair != plan.replaced.end();) {
    const NodePtr node =
        pair->first.option == "blockdev" ? daemon_.graph().find(pair->first.id) : nullptr;
    bool possible = node != nullptr;
    try {
      if (possible) {
        Reopener reopener(daemon_.graph());
        reopener.add(Options::from_value(reopen_options(*node, pair->first, pair->second)));
      }
    } catch (const Error&) {
      possible = false;
    }
    if (possible) plan.reopened.push_back(*pair);
    pair = possible ? plan.replaced.erase(pair) : pair + 1;
  }
}

// After a snapshot or a mirror the users of an export are at another node than the file names: what
// they have written is there, and the node of the file is not to come back unasked.
void Reloader::check_moved(const ReloadPlan& plan) {
  for (const auto& [before, after] : plan.replaced) {
    if (before.option != "export") continue;
    const std::string named = exported_node(after);
    if (named != exported_node(before)) continue;
    daemon_.exports().each([&](const LiveExport& one) {
      if (one.id() != before.id || shown_node(one) == named) return;
      refuse(after, "The export shows '" + shown_node(one) +
                        "' by now, which a command has put in "
                        "the place of '" +
                        named +
                        "': leave the section as it is until the daemon is started with a file "
                        "that has that node");
    });
  }
}

Task<void> Reloader::check(const ReloadPlan& plan) {
  std::vector<LineStep> going = plan.removed;
  for (const auto& [before, after] : plan.replaced) {
    if (before.option == "object")
      refuse(after, "An object cannot be changed: give it another name");
    if (before.option == "blockdev" && daemon_.graph().find(before.id) == nullptr)
      refuse(after, "The node was removed meanwhile");
    going.push_back(before);
  }
  check_moved(plan);
  const Ids exports = leaving(plan, "export");
  co_await daemon_.exports().await_leaving();
  constexpr const char* kState = "Where jobs are kept is decided when the daemon starts";
  for (const LineStep& step : plan.added)
    if (step.option == "state") refuse(step, kState);
  for (const LineStep& step : going) {
    if (step.option == "state") refuse(step, kState);
    if (step.option == "monitor") refuse(step, "A monitor stays until the daemon ends");
    const Chardev* device = daemon_.chardevs().find(step.id);
    if (step.option == "chardev" && device != nullptr && device->busy())
      refuse(step, "The character device is in use");
    daemon_.exports().each([&](const LiveExport& one) {
      if (step.option == "export" && one.id() == step.id && one.in_use())
        refuse(step, "The export has a client");
      if (step.option == "nbd-server" && one.type() == "nbd" && !exports.contains(one.id()))
        refuse(step, "The server is in use by export '" + one.id() + "'");
    });
  }
  co_await check_users(plan);
}

// Nodes that go may be used by exports and nodes that go as well.
Task<void> Reloader::check_users(const ReloadPlan& plan) {
  const Ids exports = leaving(plan, "export");
  const Ids nodes = leaving(plan, "blockdev");
  const auto change = co_await daemon_.graph().change();
  std::set<const Node*> freed;  // the Roots of exports that go
  daemon_.exports().each([&](const LiveExport& one) {
    if (exports.contains(one.id())) freed.insert(one.root().get());
  });
  for (const std::string& name : nodes) {
    const NodePtr node = daemon_.graph().find(name);
    if (node == nullptr) continue;
    std::string user;
    for (const RootPtr& root : daemon_.graph().users(*node))
      if (!freed.contains(root.get())) user = user_of(daemon_, root);
    for (const Node* parent : daemon_.graph().parents(*node))
      if (!nodes.contains(parent->node_name())) user = "node '" + parent->node_name() + "'";
    if (!user.empty())
      throw Error(ErrorKind::kLocked,
                  "blockdev '" + name + "' must be closed for this, and is in use by " + user);
  }
}

void Reloader::done(const LineStep& step, bool there, std::string_view what) {
  const auto place = std::find_if(applied_.begin(), applied_.end(),
                                  [&](const LineStep& one) { return same_section(one, step); });
  if (!there)
    applied_.erase(place);
  else if (place != applied_.end())
    *place = step;
  else
    applied_.push_back(step);
  daemon_.options().report(std::string(what) + " " + title(step));
}

Task<void> Reloader::run_step(LineStep step) {
  try {
    co_await run_option(daemon_, step.option, step.argument);
  } catch (Error& error) {
    throw error.context(step.where);
  }
}

// What commands have removed meanwhile is no error.
Task<void> Reloader::undo_step(LineStep step) {
  try {
    if (step.option == "export") {
      bool there = false;
      daemon_.exports().each([&](const LiveExport& one) { there |= one.id() == step.id; });
      if (there)
        co_await daemon_.execute("block-export-del", one_member("id", step.id), Form::kJson);
    } else if (step.option == "blockdev" && daemon_.graph().find(step.id) != nullptr) {
      co_await daemon_.execute("blockdev-del", one_member("node-name", step.id), Form::kJson);
    } else if (step.option == "object") {
      co_await daemon_.execute("object-del", one_member("id", step.id), Form::kJson);
    } else if (step.option == "chardev" && daemon_.chardevs().find(step.id) != nullptr) {
      co_await daemon_.execute("chardev-remove", one_member("id", step.id), Form::kJson);
      // With mux=on the section made two.
      const std::string shared = shared_id(step.id);
      if (daemon_.chardevs().find(shared) != nullptr)
        co_await daemon_.execute("chardev-remove", one_member("id", shared), Form::kJson);
    } else if (step.option == "nbd-server" && daemon_.nbd().running()) {
      co_await daemon_.execute("nbd-server-stop", Value::object(), Form::kJson);
    } else if (step.option == "metrics") {
      co_await daemon_.metrics().stop();
    }
  } catch (Error& error) {
    throw error.context(step.where);
  }
}

// New objects and nodes, which disturb nobody: all or none.
Task<void> Reloader::add_first(const ReloadPlan& plan) {
  std::vector<LineStep> made;
  std::exception_ptr error;
  try {
    for (const LineStep& step : plan.added) {
      if (step.option != "object" && step.option != "blockdev") continue;
      co_await run_step(step);
      made.push_back(step);
    }
  } catch (const Error&) {
    error = std::current_exception();
  }
  if (error) {
    for (auto step = made.rbegin(); step != made.rend(); ++step) co_await undo_step(*step);
    std::rethrow_exception(error);
  }
  for (const LineStep& step : made) done(step, true, "added");
}

// What goes, the users of others first.
Task<void> Reloader::take_away(const ReloadPlan& plan) {
  std::vector<LineStep> going = plan.removed;
  for (const auto& [before, after] : plan.replaced) going.push_back(before);
  const auto place = [&](const LineStep& step) {
    return std::find_if(applied_.begin(), applied_.end(),
                        [&](const LineStep& one) { return same_section(one, step); });
  };
  std::sort(going.begin(), going.end(),
            [&](const LineStep& a, const LineStep& b) { return place(a) > place(b); });
  for (const std::string_view option :
       {"export", "nbd-server", "metrics", "blockdev", "chardev", "object"})
    for (const LineStep& step : going) {
      if (step.option != option) continue;
      co_await undo_step(step);
      done(step, false, "removed");
    }
}

// Nodes get their new options, and what is new or comes back follows in the order of the files.
Task<void> Reloader::bring(const ReloadPlan& plan, const std::vector<LineStep>& wanted) {
  if (!plan.reopened.empty()) {
    const auto change = co_await daemon_.graph().change();
    Reopener reopener(daemon_.graph());
    for (const auto& [before, after] : plan.reopened) {
      const NodePtr node = daemon_.graph().get(before.id);
      reopener.add(Options::from_value(reopen_options(*node, before, after)));
    }
    co_await reopener.run();
  }
  for (const auto& [before, after] : plan.reopened) done(after, true, "reopened");
  std::exception_ptr first;
  for (const LineStep& step : wanted) {
    if (std::any_of(applied_.begin(), applied_.end(),
                    [&](const LineStep& one) { return same_section(one, step); }))
      continue;
    std::exception_ptr error;
    try {
      co_await run_step(step);
      done(step, true, "added");
    } catch (const Error&) {
      error = std::current_exception();
    }
    if (error) co_await bring_back(plan, step);
    if (!first) first = error;
  }
  if (first) std::rethrow_exception(first);
}

// What could not be replaced by STEP is as before, if that is still possible.
Task<void> Reloader::bring_back(const ReloadPlan& plan, const LineStep& step) {
  for (const auto& [before, after] : plan.replaced) {
    if (!same_section(after, step)) continue;
    try {
      co_await run_step(before);
      done(before, true, "restored");
    } catch (const Error& error) {
      daemon_.options().report("Could not restore " + title(before) + ": " + error.message());
    }
  }
}

}  // namespace cairn::daemon
