#include <sys/stat.h>

#include <algorithm>
#include <optional>

#include "base/arith.h"
#include "base/buffer.h"
#include "block/driver.h"
#include "cli/help.h"
#include "cli/pipes.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/target.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

constexpr uint64_t kUnitBytes = 1 << 20;

struct DdPlan {
  OpenRequest source;
  std::string in;
  std::string out;
  std::string format = "raw";
  uint64_t block = 512;
  std::optional<uint64_t> count;  // blocks; where reading ends, counted from the start of the disk
  uint64_t skip = 0;              // blocks
};

Task<void> copy(Session& session, Node& source, Node& target, uint64_t from, uint64_t to,
                Progress& progress) {
  AlignedBuffer buffer(kUnitBytes);
  for (uint64_t at = from; at < to;) {
    session.cancel.check();
    const MutableByteSpan part = buffer.span().first(std::min(kUnitBytes, to - at));
    try {
      co_await source.read(at, part);
    } catch (const Error& error) {
      throw Error(error.kind(), "error while reading from input image file: " + error.cause());
    }
    try {
      co_await target.write(at - from, part);
    } catch (const Error& error) {
      throw Error(error.kind(), "error while writing to output image file: " + error.cause());
    }
    at += part.size();
    progress.update(at - from, to - from);
  }
}

struct Done {
  bool created = false;
  uint64_t bytes = 0;
};

Task<NodePtr> create_output(Session& session, const DdPlan& plan, Target& out, uint64_t size,
                            bool& created) {
  CreateOptions image{
      .filename = plan.out, .format = plan.format, .options = {}, .size = size, .announce = {}};
  out.prepare(image);
  try {
    co_await create_image(session.context, std::move(image));
  } catch (Error& caught) {
    throw caught.context(plan.out + ": error while creating output image");
  }
  created = true;
  OpenRequest request;
  request.filename = out.written();
  request.format = plan.format;
  request.flags.writable = true;
  NodePtr target = co_await open_node(session.context, std::move(request));
  check_target_size(session, *target, align_up(size, 512), true);
  co_return target;
}

// PIPE: null unless the output is standard output, which takes raw data.
Task<void> run_plan(Session& session, DdPlan plan, Target* out, PipeTarget* pipe, Done& done,
                    Progress& progress) {
  NodePtr source = co_await open_source(session, std::move(plan.source), false);
  NodePtr target;
  std::exception_ptr error;
  try {
    // The locks of a raw input do not keep the output from being the same file.
    for (const Node* node = source.get(); node != nullptr; node = node->backing())
      if (pipe == nullptr && node->file() != nullptr &&
          same_file(node->file()->filename(), plan.out))
        throw Error(ErrorKind::kLocked,
                    plan.out +
                        ": error while creating output image: the input is read from this "
                        "file; it would be locked against itself");
    const auto limit = plan.count ? checked_mul(*plan.count, plan.block) : std::nullopt;
    const uint64_t end = std::min(source->length(), limit.value_or(UINT64_MAX));
    const uint64_t begin = checked_mul(plan.skip, plan.block).value_or(UINT64_MAX);
    const uint64_t size = begin < end ? end - begin : 0;
    if (pipe != nullptr) {
      target = co_await pipe->open(size, {}, {});
    } else {
      target = co_await create_output(session, plan, *out, size, done.created);
    }
    if (begin > source->length() || begin > end)
      session.error(plan.in + ": cannot skip to specified offset");
    else
      co_await copy(session, *source, *target, begin, end, progress);
    done.bytes = size;
  } catch (...) {
    error = std::current_exception();
  }
  std::vector<NodePtr> nodes = {source, target};
  co_await close_all(std::move(nodes), error);
  if (pipe != nullptr) co_await pipe->finish();
}

}  // namespace

int run_dd(Session& session, Arguments& arguments) {
  DdPlan plan;
  std::optional<std::string> in;
  std::optional<std::string> out;
  for (const std::string& word : arguments.words()) {
    const size_t equals = word.find('=');
    const std::string key = word.substr(0, equals);
    const std::string value = equals == std::string::npos ? std::string() : word.substr(equals + 1);
    if (equals == std::string::npos)
      fail(session, "unrecognized operand " + word);
    else if (key == "if")
      in = value;
    else if (key == "of")
      out = value;
    else if (key == "bs")
      plan.block = size_argument(session, value, "bs", 1, INT32_MAX);
    else if (key == "count")
      plan.count = size_argument(session, value, "count");
    else if (key == "skip")
      plan.skip = size_argument(session, value, "skip");
    else
      fail(session, "unrecognized operand " + key);
  }
  if (!in || !out) fail(session, "Must specify both input and output files");
  check_format_flags(session, arguments);
  if (const auto format = arguments.value('O')) plan.format = *format;
  if (add_objects(session, arguments)) return 0;
  const Driver* driver = session.context.registry().find(plan.format);
  if (driver == nullptr)
    fail(session,
         session.for_people() ? unknown_format(session, plan.format) : "Unknown file format");
  if (!driver->abilities().create)
    fail(session, "Format driver '" + plan.format + "' does not support image creation");
  plan.in = *in;
  plan.out = *out;
  plan.source = image_request(session, arguments, *in, arguments.value('f'));
  std::optional<PipeTarget> pipe;
  std::optional<Target> target;
  if (is_pipe(session, plan.out)) {
    if (plan.format != "raw")
      throw Error(ErrorKind::kUnsupported, "dd writes raw data to standard output only")
          .hint("`cairn convert -O " + plan.format + " IN -` sends an image.");
    pipe.emplace(session, plan.format, Options{}, false, false);
  } else {
    target.emplace(session, plan.out, arguments, plan.format, Options{});
  }
  Value report = Value::object();
  report.set("input", plan.in);
  report.set("output", plan.out);
  report.set("format", plan.format);
  Done done;
  Progress progress(session, arguments.has('p'), false, 1, Progress::Start::kWhenSlow);
  try {
    run(session, run_plan(session, std::move(plan), target ? &*target : nullptr,
                          pipe ? &*pipe : nullptr, done, progress));
  } catch (Error& error) {
    progress.finish();
    if (target) target->failed(error, done.created, {});
    if (pipe) pipe->explain(error);
    throw;
  }
  progress.finish();
  if (target) target->commit();
  if (session.json) {
    report.set("bytes", done.bytes);
    print_report(session, report);
  }
  return 0;
}

}  // namespace cairn::cli
