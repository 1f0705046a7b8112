#include "operation/nodes.h"

#include "async/finally.h"
#include "block/overlay.h"

namespace cairn::operation {

Task<void> close_all(std::vector<NodePtr> nodes, std::exception_ptr error) {
  for (const NodePtr& node : nodes) {
    if (!node) continue;
    try {
      co_await node->close();
    } catch (...) {
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

Task<NodePtr> open_over_backing(Context& context, OpenRequest request) {
  const NodePtr backing = request.backing;
  NodePtr result = co_await on_failure(
      [&]() -> Task<NodePtr> {
        NodePtr node = co_await open_node(context, std::move(request));
        co_return node;
      },
      [&]() -> Task<void> {
        if (backing) co_await backing->close();
      });
  co_return result;
}

Task<NodePtr> open_image(Context& context, OpenRequest request, bool overlay) {
  NodePtr node;
  if (overlay)
    node = co_await open_with_snapshot_overlay(context, std::move(request));
  else
    node = co_await open_node(context, std::move(request));
  co_return node;
}

std::string shown_name(const OpenRequest& request) {
  return request.filename.empty() ? request.display : request.filename;
}

}  // namespace cairn::operation
