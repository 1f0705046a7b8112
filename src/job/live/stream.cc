#include "job/live/stream.h"

#include <fmt/core.h>

#include <algorithm>
#include <climits>

#include "block/capabilities/backing_link.h"
#include "block/dirty_bitmap.h"
#include "block/graph/reopen.h"

namespace cairn::live {
namespace {

constexpr uint64_t kStreamUnitBytes = 65536;

}  // namespace

StreamJob::StreamJob(JobOptions options, Graph& graph, StreamRequest request)
    : DiskJob(JobType::kStream, std::move(options), graph), request_(std::move(request)) {
  layers_ = layers_above(*request_.device, request_.base.get()).value_or(0);
}

void StreamJob::check(const Graph& graph, const StreamRequest& request) {
  const Node& device = *request.device;
  const auto layers = layers_above(device, request.base.get());
  if (!layers || *layers == 0)
    invalid(fmt::format("Node '{}' is not a backing image of '{}'", request.base->node_name(),
                        device.node_name()));
  if (request.base == nullptr && request.backing_file)
    invalid("backing file specified, but streaming the entire chain");
  for (const Node* at = &device; at != nullptr && at != request.base.get(); at = next_below(*at))
    graph.check_free(*at);
}

Task<void> StreamJob::set_up() {
  const NodePtr& device = request_.device;
  constexpr uint8_t kRead = Permissions::kConsistentRead;
  constexpr uint8_t kUnchanged = Permissions::kWriteUnchanged;
  graph().freeze(*device, request_.base.get());
  frozen_ = true;
  co_await use(device, "active node", kRead | kUnchanged, Permissions::kAll, true);
  for (Node* at = next_below(*device); at != nullptr && at != request_.base.get();
       at = next_below(*at))
    co_await use(at->shared_from_this(), "intermediate node", 0, kRead | kUnchanged, true);
  if (request_.base != nullptr) co_await use(request_.base, "base", 0, kRead | kUnchanged, false);
  co_await insert(std::make_shared<StreamFilter>(device), device, request_.filter_name);
}

Task<void> StreamJob::run() {
  if (layers_ < 2) co_return;
  Node& device = *request_.device;
  add_total(device.length());
  const auto wanted = std::make_shared<DirtyBitmap>(
      "", device.length(), std::max(kStreamUnitBytes, device.limits().cluster_bytes));
  wanted->mark(0, device.length());
  // Without a base all is copied, however many layers the lowest node of the chain shows.
  const unsigned end = request_.base != nullptr ? layers_ : UINT_MAX;
  LayerCopy method(request_.device, 1, end, request_.device, &filter()->ranges());
  CopySettings settings;
  settings.unit = wanted->granularity();
  settings.on_read = settings.on_write = request_.on_error;
  settings.skip_ignored = true;
  CopyEngine engine(*this, device.context(), wanted, method, settings);
  co_await engine.run();
}

// What is copied is stable before the image says that it needs the layers no longer.
Task<void> StreamJob::prepare() {
  const auto change = co_await graph().change();
  const NodePtr layer = through_filters(*request_.device).shared_from_this();
  if (layer->backing() == nullptr) co_return;
  co_await request_.device->flush();
  const NodePtr& base = request_.base;
  std::string name, format;
  if (base != nullptr) {
    name = request_.backing_file.value_or(stored_name(*base));
    format = stored_format(*base);
  }
  co_await change_backing(*layer, std::move(name), std::move(format));
  graph().thaw(*request_.device, base.get());
  frozen_ = false;
  co_await graph().set_backing(layer, base);
}

Task<void> StreamJob::tear_down() {
  if (std::exchange(frozen_, false)) graph().thaw(*request_.device, request_.base.get());
  if (!request_.device_was_read_only) co_return;
  co_await let_all();
  co_await reopen_as(graph(), request_.device, false);
}

}  // namespace cairn::live
