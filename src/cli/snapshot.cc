#include <cstdio>

#include "base/size.h"
#include "block/driver.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/snapshot_table.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

struct Action {
  char letter = 'l';
  std::string argument;
};

Task<Value> act(Session& session, OpenRequest request, Action action) {
  NodePtr node = co_await open_node(session.context, std::move(request));
  std::exception_ptr error;
  Value list;
  try {
    switch (action.letter) {
      case 'l':
        list = node->snapshots_info();
        break;
      case 'c':
        co_await node->create_snapshot(action.argument);
        break;
      case 'a':
        co_await node->apply_snapshot(action.argument);
        break;
      case 'd':
        co_await node->delete_snapshot(action.argument);
        break;
      default:
        break;
    }
  } catch (Error& caught) {
    const char* doing = action.letter == 'c'   ? "Could not create snapshot '"
                        : action.letter == 'a' ? "Could not apply snapshot '"
                                               : "Could not delete snapshot '";
    caught.context(doing + action.argument + "'");
    error = std::make_exception_ptr(caught);
  }
  std::vector<NodePtr> nodes(1, node);
  co_await close_all(std::move(nodes), error);
  co_return list;
}

void report(const Session& session, const std::string& name, const Action& action,
            const Value& list) {
  Value out = Value::object();
  out.set("filename", name);
  switch (action.letter) {
    case 'c':
      out.set("action", "create");
      break;
    case 'a':
      out.set("action", "apply");
      break;
    case 'd':
      out.set("action", "delete");
      break;
    default:
      out.set("action", "list");
      break;
  }
  if (action.letter == 'l')
    out.set("snapshots", list.is_array() ? list : Value::array());
  else
    out.set("snapshot", action.argument);
  print_report(session, out);
}

}  // namespace

int run_snapshot(Session& session, Arguments& arguments) {
  Action action;
  unsigned given = 0;
  for (const char letter : {'a', 'c', 'd'}) {
    const std::vector<std::string> values = arguments.values(letter);
    given += static_cast<unsigned>(values.size());
    if (!values.empty()) action = {letter, values.back()};
  }
  for (const auto& [id, value] : arguments.given())
    if (id == 'l') {
      ++given;
      action.letter = 'l';
    }
  if (given > 1) throw UsageError{"Cannot mix '-l', '-a', '-c', '-d'"};
  if (arguments.words().size() != 1) throw UsageError{"Expecting one image file name"};
  if (add_objects(session, arguments)) return 0;
  check_format_flags(session, arguments);
  OpenRequest request =
      image_request(session, arguments, arguments.words()[0], arguments.value('f'));
  request.flags.writable = action.letter != 'l';
  request.flags.resize = action.letter == 'a';
  // Only the list is wanted: no need to look at what lies below.
  request.flags.no_backing = action.letter == 'l';
  Progress progress(session, arguments.has('p'), arguments.has('q'), 1, Progress::Start::kWhenSlow);
  const Value list = run(session, act(session, std::move(request), action));
  progress.finish();
  if (session.json) {
    report(session, arguments.words()[0], action, list);
    return 0;
  }
  const auto* rows = list.get_if<Value::Array>();
  if (action.letter == 'l' && rows != nullptr && !rows->empty()) print_snapshots(list, "");
  return 0;
}

}  // namespace cairn::cli
