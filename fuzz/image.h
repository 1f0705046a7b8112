// Whole images in memory: opened, asked, read, checked, repaired, and written where they let us.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "block/block.h"
#include "block/capabilities/checkable.h"
#include "drivers.h"

namespace cairn::fuzzing {

inline Task<void> read_some(Node& node) {
  std::vector<std::byte> buffer(64 << 10);
  uint64_t at = 0;
  for (int i = 0; i < 64 && at < node.length(); ++i) {
    const Extent extent = co_await node.extent_at(at, node.length() - at);
    if (extent.length == 0) __builtin_trap();
    try {
      co_await node.read(
          at, MutableByteSpan(buffer).first(std::min<uint64_t>(buffer.size(), node.length() - at)));
    } catch (const Error&) {
    }
    at += extent.length;
  }
}

inline Task<void> write_some(Node& node) {
  const std::vector<std::byte> buffer(3000, std::byte{7});
  for (uint64_t i = 0; i < 4; ++i) {
    const uint64_t at = node.length() / 4 * i;
    if (node.length() - at < buffer.size()) co_return;
    co_await node.write(at, buffer);
    co_await node.write_zeroes(at + 100, 1000);
  }
  co_await node.flush();
}

inline Task<void> exercise(Context& context, std::string format, std::string path, bool writable,
                           bool for_check) {
  OpenRequest request;
  request.filename = path;
  request.format = format;
  request.flags.writable = writable;
  request.flags.for_check = for_check;
  request.flags.references.mode = ReferencePolicy::Mode::kDeny;
  NodePtr node = co_await open_node(context, std::move(request));
  std::exception_ptr error;
  try {
    if (for_check) {
      CheckRequest check;
      if (writable) check.repair = CheckRequest::Repair::kAll;
      check.report = [](std::string_view) {};
      co_await check_image(*node, check);
      // What a repair leaves is looked at once more.
      check.repair = CheckRequest::Repair::kNone;
      if (writable) co_await check_image(*node, check);
    } else if (writable) {
      co_await write_some(*node);
    } else {
      co_await read_some(*node);
    }
  } catch (const Error&) {
  }
  try {
    co_await node->close();
  } catch (const Error&) {
  }
}

// One input of a target for images of FORMAT.
inline int run_image(const char* format, const uint8_t* data, size_t size) {
  static Context* context = [] {
    auto* made = new Context({.workers = 1, .engine = EngineKind::kThreads});
    register_drivers(made->registry());
    made->warn = [](std::string_view) {};
    return made;
  }();
  for (int mode = 0; mode < 4; ++mode) {
    const int fd = ::memfd_create("image", MFD_CLOEXEC);
    if (fd < 0 || ::write(fd, data, size) != static_cast<ssize_t>(size)) __builtin_trap();
    try {
      context->runtime().run(exercise(*context, format, "/proc/self/fd/" + std::to_string(fd),
                                      mode == 1 || mode == 3, mode >= 2));
    } catch (const Error&) {
    }
    ::close(fd);
  }
  return 0;
}

}  // namespace cairn::fuzzing
