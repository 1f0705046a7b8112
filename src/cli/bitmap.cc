#include "block/driver.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

struct Action {
  int id = kAdd;
  std::string source;  // of a merge
};

struct BitmapPlan {
  OpenRequest image;
  std::optional<OpenRequest> merge_from;
  std::string name;
  uint64_t granularity = 0;
  std::vector<Action> actions;
};

constexpr std::pair<int, const char*> kNames[] = {{kAdd, "add"},         {kRemove, "remove"},
                                                  {kClear, "clear"},     {kEnable, "enable"},
                                                  {kDisable, "disable"}, {kMerge, "merge"}};

const char* name_of(int id) {
  for (const auto& [one, name] : kNames)
    if (one == id) return name;
  return nullptr;
}

void act(const BitmapPlan& plan, const Action& action, Node& node, Node& source) {
  DirtyBitmaps& bitmaps = node.bitmaps();
  switch (action.id) {
    case kAdd:
      node.add_bitmap({.name = plan.name,
                       .granularity = plan.granularity,
                       .persistent = true,
                       .enabled = true});
      break;
    case kRemove:
      bitmaps.remove(plan.name);
      break;
    case kMerge: {
      const DirtyBitmapPtr target = bitmaps.get(plan.name);
      const DirtyBitmapPtr from = source.bitmaps().get(action.source);
      target->check_changeable();
      from->check_readable();
      target->merge(*from);
      break;
    }
    default: {
      const DirtyBitmapPtr bitmap = bitmaps.get(plan.name);
      bitmap->check_changeable();
      if (action.id == kClear)
        bitmap->clear();
      else
        bitmap->set_enabled(action.id == kEnable);
      break;
    }
  }
}

Task<void> run_plan(Session& session, BitmapPlan plan, Progress& progress) {
  std::vector<NodePtr> nodes;
  std::exception_ptr error;
  try {
    NodePtr node = co_await open_node(session.context, std::move(plan.image));
    nodes.push_back(std::move(node));
    if (plan.merge_from) {
      NodePtr source = co_await open_node(session.context, std::move(*plan.merge_from));
      nodes.push_back(std::move(source));
    }
    uint64_t done = 0;
    for (const Action& action : plan.actions) {
      progress.update(done++, plan.actions.size());
      try {
        act(plan, action, *nodes.front(), *nodes.back());
      } catch (Error& caught) {
        throw caught.context("Operation " + std::string(name_of(action.id)) + " on bitmap " +
                             plan.name + " failed");
      }
    }
  } catch (...) {
    error = std::current_exception();
  }
  // What was done before an error is stored.
  co_await close_all(std::move(nodes), error);
  progress.update(plan.actions.size(), plan.actions.size());
}

}  // namespace

int run_bitmap(Session& session, Arguments& arguments) {
  if (arguments.has(kList)) return list_bitmaps(session, arguments);
  BitmapPlan plan;
  bool adds = false;
  bool merges = false;
  for (const auto& [id, value] : arguments.given()) {
    if (name_of(id) == nullptr) continue;
    plan.actions.push_back({id, value});
    adds = adds || id == kAdd;
    merges = merges || id == kMerge;
  }
  if (const auto text = arguments.value('g'))
    plan.granularity = size_argument(session, *text, "granularity");
  if (plan.actions.empty())
    fail(session, "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge");
  if (plan.granularity != 0 && !adds) fail(session, "granularity only supported with --add");
  if (arguments.has('F') && !arguments.has('b')) fail(session, "-F only supported with -b");
  if (arguments.has('b') && !merges)
    fail(session, "Merge bitmap source file only supported with --merge");
  if (arguments.words().size() != 2) fail(session, "Expecting filename and bitmap name");
  if (add_objects(session, arguments)) return 0;
  check_format_flags(session, arguments);
  plan.name = arguments.words()[1];
  plan.image = image_request(session, arguments, arguments.words()[0], arguments.value('f'));
  plan.image.flags.writable = true;
  plan.image.flags.no_backing = true;
  if (const auto source = arguments.value('b')) {
    OpenRequest& request = plan.merge_from.emplace();
    request.filename = *source;
    request.format = arguments.value_or('F', "");
    request.flags.no_backing = true;
    request.flags.references = plan.image.flags.references;
  }
  Value out = Value::object();
  out.set("filename", arguments.words()[0]);
  Value actions = Value::array();
  for (const Action& action : plan.actions) actions.push_back(name_of(action.id));
  out.set("actions", std::move(actions));
  out.set("bitmap", plan.name);
  Progress progress(session, arguments.has('p'), arguments.has('q'), 1, Progress::Start::kWhenSlow);
  run(session, run_plan(session, std::move(plan), progress));
  progress.finish();
  if (session.json) print_report(session, out);
  return 0;
}

}  // namespace cairn::cli
