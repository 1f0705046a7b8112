#include "block/overlay.h"

#include "async/finally.h"
#include "base/arith.h"
#include "block/context.h"
#include "block/unnamed_file.h"

namespace cairn {
Task<NodePtr> lay_over(Context& context, NodePtr base) {
  const UnnamedFile file(context.temporary_directory, "Could not make a temporary overlay");
  CreateOptions fresh;
  fresh.filename = file.path();
  fresh.format = "qcow2";
  fresh.size = align_up(base->length(), 512);
  co_await create_image(context, std::move(fresh));
  OpenRequest over;
  over.display = "temporary overlay";
  over.options.set("driver", "qcow2");
  over.options.set("file.driver", "file");
  over.options.set("file.filename", file.path());
  over.options.set("file.locking", "off");
  over.flags.writable = true;
  over.flags.resize = true;
  over.flags.discard_unmap = true;
  over.flags.cache.no_flush = true;
  over.backing = std::move(base);
  NodePtr node = co_await open_node(context, std::move(over));
  co_return node;
}

Task<NodePtr> open_with_snapshot_overlay(Context& context, OpenRequest request) {
  request.flags.writable = false;
  request.flags.resize = false;
  NodePtr base = co_await open_node(context, std::move(request));
  NodePtr node =
      co_await on_failure([&] { return lay_over(context, base); }, [&] { return base->close(); });
  co_return node;
}

}  // namespace cairn
