#include "operation/resize.h"

#include "async/finally.h"

namespace cairn::operation {

Task<ResizeResult> resize(Context& context, OpenRequest request, ResizeOptions options) {
  using From = ResizeOptions::From;
  request.flags.writable = true;
  request.flags.resize = true;
  ResizeResult result;
  NodePtr node = co_await open_node(context, std::move(request));
  co_await finally(
      [&]() -> Task<void> {
        const uint64_t now = node->length();
        uint64_t length = options.bytes;
        bool possible = true;
        if (options.from == From::kLargerBy)
          possible = !__builtin_add_overflow(now, options.bytes, &length);
        if (options.from == From::kSmallerBy)
          possible = !__builtin_sub_overflow(now, options.bytes, &length);
        if (!possible || length == 0 || length > static_cast<uint64_t>(INT64_MAX))
          throw Error(ErrorKind::kInvalid, "New image size must be positive");
        if (length <= now && options.preallocation != Preallocation::kOff)
          throw Error(ErrorKind::kInvalid, "Preallocation can only be used for growing images");
        result = {.before = now, .after = now, .must_shrink = length < now && !options.shrink};
        if (!result.must_shrink) {
          co_await node->resize({.length = length, .preallocation = options.preallocation});
          result.after = node->length();
        }
      },
      [&] { return close_all({node}); });
  co_return result;
}

}  // namespace cairn::operation
