#include "operation/create.h"

#include "operation/target.h"

namespace cairn::operation {

void create(Caller& caller, CreateOptions options, bool overwrite) {
  Target target(caller, options.filename, overwrite, options.format, options.options);
  target.prepare(options);
  caller.run(create_image(caller.context, std::move(options)));
  target.commit();
}

Task<uint64_t> size_of_disk(Context& context, OpenRequest request) {
  request.flags.metadata_only = true;
  request.flags.no_backing = true;
  NodePtr node = co_await open_node(context, std::move(request));
  const uint64_t length = node->length();
  std::vector<NodePtr> nodes(1, node);
  co_await close_all(std::move(nodes), nullptr);
  co_return length;
}

}  // namespace cairn::operation
