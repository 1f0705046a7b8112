#include "job/live/commit.h"

#include <algorithm>

#include "block/capabilities/backing_link.h"
#include "block/dirty_bitmap.h"
#include "block/graph/reopen.h"

namespace cairn::live {
namespace {

constexpr uint64_t kCommitUnitBytes = 65536;

}  // namespace

CommitJob::CommitJob(JobOptions options, Graph& graph, CommitRequest request)
    : DiskJob(JobType::kCommit, std::move(options), graph), request_(std::move(request)) {
  layers_ = layers_above(*request_.top, request_.base.get()).value_or(0);
}

Task<void> CommitJob::set_up() {
  constexpr uint8_t kUnchanged = Permissions::kWriteUnchanged;
  constexpr uint8_t kWrite = Permissions::kWrite;
  constexpr uint8_t kRead = Permissions::kConsistentRead;
  Node* base = request_.base.get();
  graph().freeze(*request_.top, base);
  frozen_ = true;
  // First, because from then on the image above does not rely on what the layers below show.
  co_await insert(std::make_shared<CommitFilter>(request_.top), request_.top, request_.filter_name);
  for (Node* at = request_.top.get(); at != base; at = next_below(*at))
    co_await use(at->shared_from_this(), "intermediate node", 0, kUnchanged | kWrite, true);
  const bool grows = base->length() < request_.top->length();
  const auto takes = static_cast<uint8_t>(kRead | kWrite | (grows ? Permissions::kResize : 0));
  co_await use(request_.base, "base", takes, kRead | kUnchanged, true);
  if (grows) co_await base->resize({.length = request_.top->length()});
}

Task<void> CommitJob::run() {
  Node& base = *request_.base;
  const uint64_t length = request_.top->length();
  add_total(length);
  const auto wanted = std::make_shared<DirtyBitmap>(
      "", length, std::max(kCommitUnitBytes, base.limits().cluster_bytes));
  wanted->mark(0, length);
  LayerCopy method(request_.top, 0, layers_, request_.base, nullptr);
  CopySettings settings;
  settings.unit = wanted->granularity();
  settings.on_read = settings.on_write = request_.on_error;
  CopyEngine engine(*this, base.context(), wanted, method, settings);
  co_await engine.run();
}

// What is copied is stable before the images above say that they need the layers no longer.
Task<void> CommitJob::prepare() {
  const auto change = co_await graph().change();
  co_await request_.base->flush();
  const std::string name = request_.backing_file.value_or(stored_name(*request_.base));
  const std::string format = stored_format(*request_.base);
  for (Node* overlay : graph().parents(*filter())) {
    if (overlay->backing() != filter().get()) continue;
    const bool writable = !overlay->read_only();
    NodePtr image = overlay->shared_from_this();
    if (!writable) image = co_await reopen_as(graph(), image, true);
    co_await change_backing(*image, name, format);
    if (!writable) image = co_await reopen_as(graph(), image, false);
  }
  thaw();
  co_await let_all();
  co_await give_users_to(request_.base);
}

void CommitJob::thaw() {
  if (std::exchange(frozen_, false)) graph().thaw(*request_.top, request_.base.get());
}

Task<void> CommitJob::tear_down() {
  thaw();
  if (!request_.base_was_read_only) co_return;
  co_await let_all();
  co_await reopen_as(graph(), request_.base, false);
}

}  // namespace cairn::live
