#include "block/fixed_storage.h"

#include <fmt/core.h>

#include <cerrno>
#include <utility>

#include "block/context.h"
#include "block/node.h"

namespace cairn {

Error too_small(const Context& context, ErrorKind kind, std::string message, uint64_t length,
                uint64_t needed) {
  Error error(kind, std::move(message));
  if (context.profile.explanations)
    error.hint(
        fmt::format("The image needs {} bytes at least, and its storage has {}.", needed, length));
  return error;
}

Error is_full(const Context& context, uint64_t length, uint64_t needed) {
  return too_small(context, ErrorKind::kNoSpace, Error::system(ENOSPC).message(), length, needed);
}

namespace {

// Whether ERROR may be how storage of a fixed length refuses another one.
bool is_refusal(const Error& error) {
  return error.kind() == ErrorKind::kInvalid || error.kind() == ErrorKind::kUnsupported;
}

}  // namespace

Task<void> make_room(Node& host, uint64_t length) {
  try {
    co_await host.resize({.length = length, .exact = false});
  } catch (const Error& error) {
    if (!is_refusal(error) || length <= host.length()) throw;
    throw is_full(host.context(), host.length(), length);
  }
}

Task<void> trim(Node& host, uint64_t length) {
  try {
    co_await host.resize({.length = length});
  } catch (const Error& error) {
    if (!is_refusal(error)) throw;
  }
}

}  // namespace cairn
