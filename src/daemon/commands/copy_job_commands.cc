#include "base/arith.h"
#include "block/driver.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/job_arguments.h"
#include "daemon/qmp_error.h"
#include "job/live/backup.h"
#include "job/live/mirror.h"

// Jobs that copy a disk to another one.
namespace cairn::daemon {
namespace {

using live::BackupSync;
using live::BitmapMode;

constexpr int64_t kLeastGranularity = 512;
constexpr int64_t kMostGranularity = 64 << 20;

// --- mirror ---

uint64_t granularity_of(const Value& arguments) {
  const int64_t granularity = number_of(arguments, "granularity", 0);
  if (granularity == 0) return 0;
  if (granularity < kLeastGranularity || granularity > kMostGranularity)
    invalid("Parameter 'granularity' expects a value in range [512B, 64MB]");
  if (!is_power_of_two(static_cast<uint64_t>(granularity)))
    invalid("Parameter 'granularity' expects a power of 2");
  return static_cast<uint64_t>(granularity);
}

// True where LOWER is NODE, or below it through nodes that show what is below them.
bool shows(const Node& node, const Node& lower) {
  if (&node == &lower) return true;
  for (const Child& child : node.children()) {
    const bool same = child.role == ChildRole::kFiltered || node.driver().name() == "quorum";
    if (same && shows(*child.node, lower)) return true;
  }
  return false;
}

// A mirror does not know all that "sync" can be.
void check_mirror_sync(const Value& arguments) {
  const std::string sync = text_of(arguments, "sync");
  if (sync == "incremental" || sync == "bitmap") invalid("Sync mode '" + sync + "' not supported");
}

NodePtr replaced_node(const Graph& graph, const Node& source, const Value& arguments) {
  const std::string name = text_of(arguments, "replaces");
  const std::string device = text_of(arguments, "device");
  if (name.empty()) return nullptr;
  NodePtr node = graph.find(name);
  if (node == nullptr) invalid("Failed to find node with node-name='" + name + "'");
  graph.check_free(*node);
  graph.check_no_overlay(*node);
  if (!shows(source, *node))
    invalid("Cannot replace '" + name + "' by a node mirrored from '" + device +
            "', because it cannot be guaranteed that doing so would not lead to an abrupt change "
            "of visible data");
  return node;
}

Task<Value> blockdev_mirror(Daemon& daemon, Value arguments) {
  Graph& graph = daemon.graph();
  const auto change = co_await graph.change();
  NodePtr source = device_node(graph, text_of(arguments, "device"));
  NodePtr target = device_node(graph, text_of(arguments, "target"));
  std::shared_ptr<live::MirrorJob> job =
      mirror_job(daemon, arguments, std::move(source), std::move(target), daemon.progress_store());
  co_await live::launch(daemon.jobs(), std::move(job));
  co_return Value::object();
}

// --- backup ---

struct BitmapArguments {
  std::string sync;
  std::string mode;  // empty: none
  bool given = false;
};

bool is_by_bitmap(const BitmapArguments& bitmap) {
  return bitmap.sync == "bitmap" || bitmap.sync == "incremental";
}

// Which of the modes make sense together, whatever the bitmap is.
void check_bitmap_modes(const BitmapArguments& bitmap) {
  if (is_by_bitmap(bitmap) && !bitmap.given)
    invalid("must provide a valid bitmap name for '" + bitmap.sync + "' sync mode");
  if (bitmap.sync == "incremental" && !bitmap.mode.empty() && bitmap.mode != "on-success")
    invalid("Bitmap sync mode must be 'on-success' when using sync mode 'incremental'");
  if (!bitmap.given && !bitmap.mode.empty())
    invalid("Cannot specify bitmap sync mode without a bitmap");
}

// And what a bitmap that is there can be used for.
void check_bitmap_use(const BitmapArguments& bitmap) {
  if (bitmap.mode.empty() && bitmap.sync != "incremental")
    invalid("Bitmap sync mode must be given when providing a bitmap");
  if (is_by_bitmap(bitmap)) return;
  if (bitmap.sync == "none") invalid("sync mode 'none' does not produce meaningful bitmap outputs");
  if (bitmap.mode == "never")
    invalid("Bitmap sync mode 'never' has no meaningful effect when combined with sync mode '" +
            bitmap.sync + "'");
}

void take_bitmap(live::BackupRequest& request, const Value& arguments) {
  const BitmapArguments bitmap{.sync = text_of(arguments, "sync"),
                               .mode = text_of(arguments, "bitmap-mode"),
                               .given = arguments.find("bitmap") != nullptr};
  check_bitmap_modes(bitmap);
  request.sync = bitmap.sync == "full"   ? BackupSync::kFull
                 : bitmap.sync == "top"  ? BackupSync::kTop
                 : bitmap.sync == "none" ? BackupSync::kNone
                                         : BackupSync::kBitmap;
  if (!bitmap.given) return;
  const std::string name = text_of(arguments, "bitmap");
  request.bitmap = request.source->bitmaps().find(name);
  if (request.bitmap == nullptr) invalid("Bitmap '" + name + "' could not be found");
  check_bitmap_use(bitmap);
  request.bitmap->check_readable();
  request.bitmap->check_changeable();
  request.bitmap_mode = bitmap.mode == "never"    ? BitmapMode::kNever
                        : bitmap.mode == "always" ? BitmapMode::kAlways
                                                  : BitmapMode::kOnSuccess;
}

// The options of "x-perf".
void take_limits(live::BackupRequest& request, const Value& arguments) {
  const Value* limits = arguments.find("x-perf");
  if (limits == nullptr) return;
  const int64_t workers = number_of(*limits, "max-workers", 64);
  if (workers < 1 || workers > INT32_MAX) invalid("max-workers must be between 1 and 2147483647");
  const int64_t chunk = number_of(*limits, "max-chunk", 0);
  if (chunk < 0) invalid("max-chunk must be zero (which means no limit) or positive");
  request.workers = static_cast<unsigned>(workers);
  request.most_chunk = static_cast<uint64_t>(chunk);
  const int64_t least = number_of(*limits, "min-cluster-size", 0);
  if (least < 0 || (least != 0 && !is_power_of_two(static_cast<uint64_t>(least))))
    invalid(
        "Could not create node: Cannot create block-copy-state: min-cluster-size needs to be a "
        "power of 2");
  request.least_cluster = static_cast<uint64_t>(least);
  const uint64_t cluster = live::BackupJob::cluster_of(request);
  if (chunk != 0 && request.most_chunk < cluster)
    invalid("Required max-chunk (" + std::to_string(chunk) +
            ") is less than backup cluster size (" + std::to_string(cluster) + ")");
}

Task<Value> blockdev_backup(Daemon& daemon, Value arguments) {
  Graph& graph = daemon.graph();
  const auto change = co_await graph.change();
  NodePtr source = device_node(graph, text_of(arguments, "device"));
  NodePtr target = device_node(graph, text_of(arguments, "target"));
  std::shared_ptr<live::BackupJob> job =
      backup_job(daemon, arguments, std::move(source), std::move(target), daemon.progress_store());
  co_await live::launch(daemon.jobs(), std::move(job));
  co_return Value::object();
}

constexpr Command kCopyJobCommands[] = {
    {"blockdev-mirror", blockdev_mirror},
    {"blockdev-backup", blockdev_backup},
};

}  // namespace

std::shared_ptr<live::MirrorJob> mirror_job(Daemon& daemon, const Value& arguments, NodePtr source,
                                            NodePtr target, live::ProgressStorePtr store) {
  Graph& graph = daemon.graph();
  live::MirrorRequest request;
  request.source = std::move(source);
  request.target = std::move(target);
  live::JobOptions options = job_options(arguments);
  request.granularity = granularity_of(arguments);
  check_root(graph, *request.source);
  graph.check_free(*request.source);
  graph.check_free(*request.target);
  graph.check_no_overlay(*request.target);
  request.replaces = replaced_node(graph, *request.source, arguments);
  check_mirror_sync(arguments);
  request.sync = mirror_sync(*request.source, arguments);
  const int64_t buffers = number_of(arguments, "buf-size", 0);
  if (buffers < 0) invalid("Invalid parameter 'buf-size'");
  request.buffer_bytes = static_cast<uint64_t>(buffers);
  if (request.source == request.target) invalid("Can't mirror node into itself");
  request.remaining = daemon.job_recipes().take_left(options.id).remaining;
  request.store = std::move(store);
  request.unmap = flag_of(arguments, "unmap", true);
  request.write_blocking = text_of(arguments, "copy-mode") == "write-blocking";
  request.filter_name = text_of(arguments, "filter-node-name");
  check_filter_name(graph, request.filter_name);
  daemon.jobs().check_id(options.id);
  request.on_source_error = on_error(arguments, "on-source-error");
  request.on_target_error = on_error(arguments, "on-target-error");
  return std::make_shared<live::MirrorJob>(live::JobType::kMirror, std::move(options), graph,
                                           std::move(request));
}

live::MirrorSync mirror_sync(const Node& source, const Value& arguments) {
  const std::string sync = text_of(arguments, "sync");
  // Without a backing file the top layer is all there is.
  if (sync == "full" || (sync == "top" && source.layer_below() == nullptr))
    return live::MirrorSync::kFull;
  return sync == "none" ? live::MirrorSync::kNone : live::MirrorSync::kTop;
}

std::shared_ptr<live::BackupJob> backup_job(Daemon& daemon, const Value& arguments, NodePtr source,
                                            NodePtr target, live::ProgressStorePtr store) {
  Graph& graph = daemon.graph();
  live::BackupRequest request;
  request.source = std::move(source);
  request.target = std::move(target);
  request.compress = flag_of(arguments, "compress", false);
  live::JobOptions options = job_options(arguments);
  take_bitmap(request, arguments);
  live::BackupJob::check(request);
  take_limits(request, arguments);
  graph.check_free(*request.target);
  JobRecipes::Left left = daemon.job_recipes().take_left(options.id);
  request.remaining = std::move(left.remaining);
  request.written_since = std::move(left.written_since);
  request.store = std::move(store);
  // What is kept has a bit for each cluster: not too many of them.
  if (request.store != nullptr)
    request.least_cluster =
        std::max(request.least_cluster, live::kept_backup_cluster(request.source->length()));
  request.discard_source = flag_of(arguments, "discard-source", false);
  request.filter_name = text_of(arguments, "filter-node-name");
  check_filter_name(graph, request.filter_name, "Could not create node");
  daemon.jobs().check_id(options.id);
  request.on_source_error = on_error(arguments, "on-source-error");
  request.on_target_error = on_error(arguments, "on-target-error");
  return std::make_shared<live::BackupJob>(std::move(options), graph, std::move(request));
}

std::span<const Command> copy_job_commands() { return kCopyJobCommands; }

}  // namespace cairn::daemon
