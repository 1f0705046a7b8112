// The NBD server's state machine: a client's bytes over a socket pair, from the first one on.
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "block/block.h"
#include "drivers.h"
#include "export/nbd/server.h"

namespace {

using namespace cairn;

Task<void> send_and_drain(Socket socket, ByteSpan bytes) {
  Stream stream(std::move(socket));
  std::exception_ptr ignored;
  TaskGroup sides;
  sides.spawn([](Stream& side, ByteSpan all) -> Task<void> {
    try {
      co_await side.write_all(all);
      co_await side.finish();
    } catch (const Error&) {
    }
  }(stream, bytes));
  std::vector<std::byte> sink(65536);
  try {
    size_t got = 1;
    while (got != 0) got = co_await stream.read_some(sink);
  } catch (const Error&) {
  }
  stream.abort();
  co_await sides.join();
}

Task<void> talk(Context& context, NodePtr node, bool writable, ByteSpan bytes) {
  nbd::server::ServerOptions options;
  nbd::server::ExportOptions disk{.name = "e",
                                  .description = "d",
                                  .node = node,
                                  .offset = 0,
                                  .size = node->length(),
                                  .writable = writable,
                                  .multi_conn = true,
                                  .allocation_depth = true,
                                  .bitmaps = {}};
  options.exports.push_back(std::make_shared<const nbd::server::Export>(std::move(disk)));
  options.handshake_limit = std::chrono::seconds(0);
  nbd::server::Server server(context, std::move(options));
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) __builtin_trap();
  Socket ours(ends[0]);
  Socket theirs(ends[1]);
  TaskGroup group;
  group.spawn(send_and_drain(std::move(theirs), bytes));
  co_await server.serve(std::move(ours));
  co_await group.join();
  if (server.statistics().clients != 0) __builtin_trap();
}

Task<NodePtr> open_disk(Context& context, int fd) {
  OpenRequest request;
  request.filename = "/proc/self/fd/" + std::to_string(fd);
  request.format = "raw";
  request.flags.writable = true;
  NodePtr node = co_await open_node(context, std::move(request));
  co_return node;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Context* context = [] {
    auto* made = new Context({.workers = 1, .engine = EngineKind::kThreads});
    register_drivers(made->registry());
    made->warn = [](std::string_view) {};
    return made;
  }();
  static const int fd = [] {
    const int made = ::memfd_create("disk", MFD_CLOEXEC);
    if (made < 0 || ::ftruncate(made, 1 << 20) != 0) __builtin_trap();
    return made;
  }();
  if (size == 0) return 0;
  NodePtr node = context->runtime().run(open_disk(*context, fd));
  const ByteSpan bytes(reinterpret_cast<const std::byte*>(data + 1), size - 1);
  context->runtime().run(talk(*context, node, (data[0] & 1) != 0, bytes));
  context->runtime().run(node->close());
  return 0;
}
