#include "operation/snapshot.h"

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

operation::SnapshotAction kind_of(const Action& action) {
  using operation::SnapshotAction;
  switch (action.letter) {
    case 'c':
      return SnapshotAction::kCreate;
    case 'a':
      return SnapshotAction::kApply;
    case 'd':
      return SnapshotAction::kDelete;
    default:
      return SnapshotAction::kList;
  }
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
  Progress progress(session, arguments.has('p'), arguments.has('q'), 1, Progress::Start::kWhenSlow);
  const Value list = run(session, operation::act_on_snapshots(session.context, std::move(request),
                                                              kind_of(action), action.argument));
  progress.finish();
  if (session.json) {
    report(session, arguments.words()[0], action, list);
    return 0;
  }
  const auto* rows = list.get_if<Value::Array>();
  if (action.letter == 'l' && rows != nullptr && !rows->empty()) print_snapshots(list, "");
  return 0;
}

}  // namespace

Verb snapshot_verb() {
  return {.name = "snapshot",
          .summary = "lists, creates, applies and deletes internal snapshots",
          .synopsis =
              "[--object DEF] [--image-opts] [-U] [-q] [-f FMT] [-l | -a SNAP | -c NAME | -d NAME] "
              "FILE",
          .flags = {{'l', "list", nullptr, "list the snapshots"},
                    {'a', "apply", "SNAP", "return the disk to this snapshot (ID or name)"},
                    {'c', "create", "NAME", "create a snapshot of the current state"},
                    {'d', "delete", "NAME", "delete the first snapshot of that name"},
                    kFormatFlag,
                    kQuietFlag,
                    kForceShareFlag,
                    kImageOptsFlag,
                    kObjectFlag},
          .own_flags = {kProgressFlag},
          .run = run_snapshot};
}

}  // namespace cairn::cli
