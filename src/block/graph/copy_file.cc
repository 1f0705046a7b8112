#include "block/graph/copy_file.h"

#include "block/capabilities/backing_link.h"
#include "block/context.h"
#include "block/driver.h"
#include "block/graph/lasting_name.h"

namespace cairn {
namespace {

Task<void> make_copy_file(Graph& graph, const CopyFile& request, const std::string& format) {
  Node& source = *request.source;
  CreateOptions fresh;
  fresh.filename = request.file;
  fresh.format = format;
  fresh.size = source.length();
  Node* below = request.below == CopyFile::Below::kSource          ? &source
                : request.below == CopyFile::Below::kSourceBacking ? source.backing()
                                                                   : nullptr;
  if (below != nullptr) {
    fresh.options.set("backing_file", lasting_name(*below));
    fresh.options.set("backing_fmt", below->driver().name());
  }
  fresh.backing_unchecked = true;
  fresh.overwrite = true;
  fresh.announce = request.announce;
  co_await create_image(graph.context(), std::move(fresh));
}

// The format that is found in a file that is there.
Task<std::string> format_of_file(Graph& graph, const std::string& file) {
  OpenRequest look;
  look.filename = file;
  look.bare_errors = true;
  look.flags.metadata_only = true;
  look.flags.no_backing = true;
  look.flags.force_share = true;
  const NodePtr node = co_await open_node(graph.context(), std::move(look));
  std::string format(node->driver().name());
  co_await node->close();
  co_return format;
}

}  // namespace

Task<NodePtr> open_copy_file(Graph& graph, CopyFile request) {
  std::string format = request.format;
  if (format.empty() && !request.existing) format = request.source->driver().name();
  if (format.empty()) format = co_await format_of_file(graph, request.file);
  const Driver* driver = graph.context().registry().find(format);
  if (request.existing && driver == nullptr)
    throw Error(ErrorKind::kInvalid, "Unknown driver '" + format + "'");
  if (!request.existing) co_await make_copy_file(graph, request, format);
  Options options;
  options.set("driver", format);
  if (!request.node_name.empty()) options.set("node-name", request.node_name);
  if (request.unmap) options.set("discard", "unmap");
  if (request.detect_zeroes) options.set("detect-zeroes", request.unmap ? "unmap" : "on");
  // Only what can have a backing file knows the option.
  const bool may_have_backing = driver != nullptr && driver->offers<BackingName>();
  if (!request.open_backing && may_have_backing) options.set("backing", nullptr);
  NodePtr node = co_await graph.open(request.file, std::move(options));
  co_return node;
}

}  // namespace cairn
