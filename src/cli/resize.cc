#include "base/size.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/size_text.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

struct ResizeWanted {
  char sign = 0;  // '+' or '-' for a change, else the size itself
  uint64_t bytes = 0;
  bool shrink = false;
  Preallocation preallocation = Preallocation::kOff;
};

struct Resized {
  uint64_t before = 0;
  uint64_t after = 0;
};

Task<Resized> resize_image(Session& session, OpenRequest request, ResizeWanted wanted) {
  Resized sizes;
  NodePtr node = co_await open_node(session.context, std::move(request));
  std::exception_ptr error;
  try {
    const uint64_t now = node->length();
    uint64_t length = wanted.bytes;
    bool possible = true;
    if (wanted.sign == '+') possible = !__builtin_add_overflow(now, wanted.bytes, &length);
    if (wanted.sign == '-') possible = !__builtin_sub_overflow(now, wanted.bytes, &length);
    if (!possible || length == 0 || length > static_cast<uint64_t>(INT64_MAX))
      throw Error(ErrorKind::kInvalid, "New image size must be positive");
    if (length <= now && wanted.preallocation != Preallocation::kOff)
      throw Error(ErrorKind::kInvalid, "Preallocation can only be used for growing images");
    if (length < now && !wanted.shrink) {
      session.error("Use the --shrink option to perform a shrink operation.");
      session.warning(
          "Shrinking an image will delete all data beyond the shrunken image's end. "
          "Before performing such an operation, make sure there is no important data there.");
      throw Exit{1};
    }
    co_await node->resize({.length = length, .preallocation = wanted.preallocation});
    sizes = {.before = now, .after = node->length()};
  } catch (...) {
    error = std::current_exception();
  }
  std::vector<NodePtr> nodes(1, node);
  co_await close_all(std::move(nodes), error);
  co_return sizes;
}

}  // namespace

int run_resize(Session& session, Arguments& arguments) {
  ResizeWanted wanted;
  wanted.shrink = arguments.has(kShrink);
  if (const auto mode = arguments.value(kPreallocation)) {
    try {
      wanted.preallocation = parse_preallocation(*mode);
    } catch (const Error&) {
      fail(session, "Invalid preallocation mode '" + *mode + "'");
    }
  }
  auto words = arguments.words();
  if (words.size() != 2)
    throw UsageError{words.size() > 2 ? "Extra argument(s) in command line"
                                      : "Expecting image file name and size"};
  if (add_objects(session, arguments)) return 0;
  check_format_flags(session, arguments);
  std::string size = words[1];
  if (size.starts_with('+') || size.starts_with('-')) {
    wanted.sign = size[0];
    size.erase(0, 1);
  }
  // The words about the size are those of an option.
  Options parsed;
  parsed.set("size", plain_size(session, size));
  wanted.bytes = parsed.size("size").value_or(0);
  OpenRequest request = image_request(session, arguments, words[0], arguments.value('f'));
  request.flags.writable = true;
  request.flags.resize = true;
  Progress progress(session, arguments.has('p'), arguments.has('q'), 1, Progress::Start::kWhenSlow);
  const Resized sizes = run(session, resize_image(session, std::move(request), wanted));
  progress.finish();
  if (session.json) {
    Value out = Value::object();
    out.set("filename", words[0]);
    out.set("old-size", sizes.before);
    out.set("virtual-size", sizes.after);
    print_report(session, out);
  }
  if (!arguments.has('q')) session.say("Image resized.\n");
  return 0;
}

}  // namespace cairn::cli
