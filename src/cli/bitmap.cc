#include "operation/bitmap.h"

#include "cli/progress.h"
#include "cli/report.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

using Kind = operation::BitmapAction::Kind;

constexpr std::pair<int, Kind> kKinds[] = {{kAdd, Kind::kAdd},         {kRemove, Kind::kRemove},
                                           {kClear, Kind::kClear},     {kEnable, Kind::kEnable},
                                           {kDisable, Kind::kDisable}, {kMerge, Kind::kMerge}};

std::optional<Kind> kind_of(int id) {
  for (const auto& [one, kind] : kKinds)
    if (one == id) return kind;
  return std::nullopt;
}

int run_bitmap(Session& session, Arguments& arguments) {
  if (arguments.has(kList)) return list_bitmaps(session, arguments);
  operation::BitmapOptions plan;
  bool adds = false;
  bool merges = false;
  for (const auto& [id, value] : arguments.given()) {
    const auto kind = kind_of(id);
    if (!kind) continue;
    plan.actions.push_back({*kind, value});
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
  for (const operation::BitmapAction& action : plan.actions)
    actions.push_back(operation::to_string(action.kind));
  out.set("actions", std::move(actions));
  out.set("bitmap", plan.name);
  Progress progress(session, arguments.has('p'), arguments.has('q'), 1, Progress::Start::kWhenSlow);
  run(session, operation::change_bitmaps(session.caller(progress), std::move(plan)));
  progress.finish();
  if (session.json) print_report(session, out);
  return 0;
}

}  // namespace

Verb bitmap_verb() {
  return {.name = "bitmap",
          .summary = "adds, removes and changes the persistent dirty bitmaps of an image",
          .synopsis =
              "(--add | --remove | --clear | --enable | --disable | --merge SOURCE)... [-b FILE "
              "[-F FMT]] "
              "[-g GRANULARITY] [--object DEF] [--image-opts | -f FMT] FILE BITMAP",
          .flags = {{kAdd, "add", nullptr, "create the bitmap; it records writes from now on"},
                    {kRemove, "remove", nullptr, "delete the bitmap"},
                    {kClear, "clear", nullptr, "clear all bits"},
                    {kEnable, "enable", nullptr, "record writes"},
                    {kDisable, "disable", nullptr, "record no writes"},
                    {kMerge, "merge", "SOURCE", "add the bits of this bitmap of FILE, or of -b"},
                    {'b', "source-file", "FILE", "where the bitmaps of --merge are"},
                    {'F', "source-format", "FMT", "its format"},
                    {'g', "granularity", "BYTES",
                     "bytes for each bit of a new bitmap (the cluster size)"},
                    kFormatFlag,
                    kImageOptsFlag,
                    kObjectFlag},
          .own_flags = {{kList, "list", nullptr, "list the bitmaps of FILE"}, kProgressFlag},
          .run = run_bitmap};
}

}  // namespace cairn::cli
