#include <algorithm>

#include "block/driver.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

const OptionSpec* find(const OptionSchema& schema, std::string_view key) {
  const auto found = std::find_if(schema.begin(), schema.end(),
                                  [&](const OptionSpec& spec) { return spec.name == key; });
  return found == schema.end() ? nullptr : &*found;
}

void check_amend_options(const Driver& driver, const Options& options) {
  for (const auto& [key, value] : options.items()) {
    const OptionSpec* spec = find(driver.amend_options(), key);
    if (spec == nullptr) {
      Error error(ErrorKind::kInvalid, "Invalid parameter '" + key + "'");
      if (find(driver.create_options(), key) != nullptr)
        error.hint("This option is only supported for image creation");
      throw error;
    }
    check_option(*spec, options);
  }
}

// Version 2 of qcow2 has no place for bitmaps.
void check_bitmaps_stay(const Session& session, const Node& node, const AmendRequest& changes) {
  const std::string level = changes.options.string("compat").value_or("");
  if (level != "0.10" && level != "v2") return;
  std::string names;
  for (const DirtyBitmapPtr& bitmap : node.bitmaps().list())
    if (bitmap->persistent())
      names += (names.empty() ? "'" : ", '") + std::string(bitmap->name()) + "'";
  if (names.empty()) return;
  if (session.for_people() && !changes.force)
    throw Error(ErrorKind::kInvalid,
                "compat=0.10 has no dirty bitmaps: " + names + " would be lost")
        .hint("Nothing was changed. --force loses them.");
  session.warning("compat=0.10 has no dirty bitmaps: " + names + " will be lost");
}

// True when only the help was wanted, for the format that FORMAT becomes.
Task<bool> amend_image(Session& session, OpenRequest request, AmendRequest changes, bool help,
                       Progress& progress, std::string& format) {
  NodePtr node = co_await open_node(session.context, std::move(request));
  std::exception_ptr error;
  bool started = false;
  try {
    const Driver& driver = node->driver();
    format = driver.name();
    if (!help) {
      if (!driver.abilities().amend)
        throw Error(ErrorKind::kUnsupported,
                    "Format driver '" + format + "' does not support option amendment");
      check_amend_options(driver, changes.options);
      check_bitmaps_stay(session, *node, changes);
      progress.update(0, 1);
      started = true;
      co_await node->amend(std::move(changes));
    }
  } catch (...) {
    error = std::current_exception();
  }
  if (started) progress.update(1, 1);
  std::vector<NodePtr> nodes(1, node);
  co_await close_all(std::move(nodes), error);
  co_return help;
}

}  // namespace

int run_amend(Session& session, Arguments& arguments) {
  bool help = false;
  const auto given = option_lists(session, arguments, &help);
  if (!given) throw UsageError{"Must specify options (-o)"};
  if (add_objects(session, arguments)) return 0;
  const auto& words = arguments.words();
  const std::string format = arguments.value_or('f', "");
  if (help && !format.empty()) return print_amend_help(session, format);
  if (words.size() != 1) fail(session, "Expecting one image file name");
  check_format_flags(session, arguments);
  OpenRequest request = image_request(session, arguments, words[0], arguments.value('f'));
  request.flags.cache =
      cache_mode(session, arguments.value_or('t', "writeback"), "Invalid cache option");
  request.flags.writable = !help;
  request.flags.metadata_only = help;
  request.flags.no_backing = help;
  request.flags.resize = true;
  Progress progress(session, arguments.has('p') && !help, arguments.has('q'), 1,
                    Progress::Start::kWithFirstUpdate);
  AmendRequest changes{
      .options = *given,
      .force = arguments.has(kForce),
      .progress = [&](uint64_t done, uint64_t total) { progress.update(done, total); }};
  std::string found;
  const bool asked = run(
      session, amend_image(session, std::move(request), std::move(changes), help, progress, found));
  progress.finish();
  if (asked) return print_amend_help(session, found);
  if (session.json) {
    Value out = Value::object();
    out.set("filename", words[0]);
    out.set("format", found);
    out.set("options", object_of(*given));
    print_report(session, out);
  }
  return 0;
}

}  // namespace cairn::cli
