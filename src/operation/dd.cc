#include "operation/dd.h"

#include <algorithm>

#include "async/finally.h"
#include "base/arith.h"
#include "base/buffer.h"
#include "block/driver.h"
#include "operation/target.h"

namespace cairn::operation {
namespace {

constexpr uint64_t kUnitBytes = 1 << 20;

struct DdResult {
  bool created = false;
  uint64_t bytes = 0;
};

Task<void> copy(Caller& caller, Node& source, Node& target, uint64_t from, uint64_t to) {
  AlignedBuffer buffer(kUnitBytes);
  for (uint64_t at = from; at < to;) {
    caller.cancel.check();
    const MutableByteSpan part = buffer.span().first(std::min(kUnitBytes, to - at));
    try {
      co_await source.read(at, part);
    } catch (const Error& error) {
      throw error.behind("error while reading from input image file: " + error.cause());
    }
    try {
      co_await target.write(at - from, part);
    } catch (const Error& error) {
      throw error.behind("error while writing to output image file: " + error.cause());
    }
    at += part.size();
    caller.progress(at - from, to - from);
  }
}

Task<NodePtr> create_output(Caller& caller, const DdOptions& plan, Target& out, uint64_t size,
                            bool& created) {
  CreateOptions image{
      .filename = plan.out, .format = plan.format, .options = {}, .size = size, .announce = {}};
  out.prepare(image);
  try {
    co_await create_image(caller.context, std::move(image));
  } catch (Error& caught) {
    throw caught.context(plan.out + ": error while creating output image");
  }
  created = true;
  OpenRequest request;
  request.filename = out.written();
  request.format = plan.format;
  request.flags.writable = true;
  NodePtr target = co_await open_node(caller.context, std::move(request));
  check_target_size(caller, *target, align_up(size, 512), true);
  co_return target;
}

// PIPE: null unless the output is standard output, which takes raw data.
Task<void> copy_plan(Caller& caller, DdOptions plan, Target* out, PipeTarget* pipe,
                     DdResult& done) {
  NodePtr source = co_await open_source(caller, std::move(plan.source), false);
  NodePtr target;
  co_await finally(
      [&]() -> Task<void> {
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
          target = co_await create_output(caller, plan, *out, size, done.created);
        }
        if (begin > source->length() || begin > end)
          caller.note(plan.in + ": cannot skip to specified offset");
        else
          co_await copy(caller, *source, *target, begin, end);
        done.bytes = size;
      },
      [&] {
        return close_all({source, target});
      });
  if (pipe != nullptr) co_await pipe->finish();
}

}  // namespace

uint64_t dd(Caller& caller, DdOptions options) {
  std::optional<PipeTarget> pipe;
  std::optional<Target> target;
  if (is_pipe(caller, options.out)) {
    if (options.format != "raw")
      throw Error(ErrorKind::kUnsupported, "dd writes raw data to standard output only")
          .hint("`cairn convert -O " + options.format + " IN -` sends an image.");
    pipe.emplace(caller, options.format, Options{}, false, false, options.take_output);
  } else if (const Driver* driver = PipeTarget::uploader(caller.context, options.out)) {
    pipe.emplace(caller,
                 PipeTarget::Upload{.driver = driver,
                                    .filename = options.out,
                                    .overwrite = options.overwrite || !caller.guarded,
                                    .whole = true},
                 options.format, Options{}, false, false);
  } else {
    target.emplace(caller, options.out, options.overwrite, options.format, Options{});
  }
  DdResult done;
  try {
    caller.run(copy_plan(caller, std::move(options), target ? &*target : nullptr,
                         pipe ? &*pipe : nullptr, done));
  } catch (Error& error) {
    if (target) target->failed(error, done.created, {});
    if (pipe) pipe->explain(error);
    throw;
  }
  if (target) target->commit();
  return done.bytes;
}

}  // namespace cairn::operation
