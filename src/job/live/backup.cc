#include "job/live/backup.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/arith.h"
#include "block/capabilities/compressed_writer.h"
#include "block/remote.h"

namespace cairn::live {
namespace {

constexpr uint64_t kLeastBackupCluster = 65536;
constexpr uint64_t kBackupPieceBytes = 512 << 10;
constexpr unsigned kMostBackupRequests = 16;  // each has a buffer of a piece

}  // namespace

// Copies what its users are about to overwrite.
class BackupFilter : public JobFilter, public CopyMethod {
 public:
  BackupFilter(const BackupRequest& request, uint64_t cluster)
      : JobFilter("copy-before-write", request.source, "file"),
        target_(request.target),
        cluster_(cluster),
        compress_(request.compress),
        discard_source_(request.discard_source),
        left_(std::make_shared<DirtyBitmap>("", request.source->length(), cluster)) {
    add_target(request.target);
  }

  // What has to be copied before it may be written.
  DirtyBitmap& left() { return *left_; }
  const DirtyBitmapPtr& left_bitmap() const { return left_; }
  // What is overwritten, or discarded, in the source is kept there first. Before users come.
  void keep_in(std::shared_ptr<BackupProgress> progress) { progress_ = std::move(progress); }
  // Nobody needs the old content of anything any more: users may move back below.
  void stop() {
    unsaved_ = std::make_shared<DirtyBitmap>("", length(), cluster_);
    unsaved_->merge(*left_);
    left_->clear();
    stopped_ = true;
  }
  // What was not copied when it was stopped; null before.
  const DirtyBitmapPtr& unsaved() const { return unsaved_; }

  Task<CopyPiece> look(uint64_t offset, uint64_t max) override {
    CopyPiece piece{.offset = offset, .length = max};
    const DirtyBitmap::Run run = left_->run_at(offset, max);
    piece.length = run.length;
    if (!run.dirty) {
      piece.kind = CopyPiece::Kind::kSkip;
      co_return piece;
    }
    const Extent found = co_await below()->extent_at(offset, run.length);
    piece.length = std::min(piece.length, found.length);
    if (!found.zero) co_return piece;
    piece.kind = CopyPiece::Kind::kZero;
    co_return piece;
  }

  Task<void> copy(CopyPiece piece, MutableByteSpan buffer, JobSide* side) override {
    co_await save_range(piece, buffer, side);
    *side = JobSide::kWrite;
    if (discard_source_ && progress_) co_await progress_->keep(piece.offset, piece.length);
    if (discard_source_) co_await below()->discard(piece.offset, piece.length);
  }

  // What is left of the clusters around PIECE.
  Task<void> save_range(CopyPiece piece, MutableByteSpan buffer, JobSide* side) {
    const uint64_t begin = align_down(piece.offset, cluster_);
    const uint64_t end = std::min(align_up(piece.offset + piece.length, cluster_), length());
    RangeLock::Guard guard;
    co_await ranges().acquire(guard, begin, end - begin, true);
    AlignedBuffer own(buffer.empty() ? std::min(end - begin, std::max(kBackupPieceBytes, cluster_))
                                     : 0);
    const MutableByteSpan room = buffer.empty() ? own.span() : buffer;
    for (uint64_t at = begin; at < end;) {
      *side = JobSide::kRead;
      CopyPiece part = co_await look(at, end - at);
      part.length = part.kind == CopyPiece::Kind::kData || align_down(part.length, cluster_) == 0
                        ? std::min(align_up(part.length, cluster_), end - at)
                        : std::min(align_down(part.length, cluster_), end - at);
      if (part.kind != CopyPiece::Kind::kSkip) {
        const bool zero = part.kind == CopyPiece::Kind::kZero && co_await all_zero(at, part.length);
        part.length = co_await carry(at, part.length, zero, room, side);
        left_->clean(at, part.length);
      }
      at += part.length;
    }
  }

  bool child_use(std::string_view name, uint8_t& takes, uint8_t& shares) const override {
    if (stopped_) {
      takes = 0;
      shares = Permissions::kAll;
      return true;
    }
    constexpr uint8_t kShared = Permissions::kConsistentRead | Permissions::kWriteUnchanged;
    if (name == "target") {
      takes = Permissions::kWrite;
      shares = kShared | Permissions::kWrite;
    } else {
      takes |= Permissions::kConsistentRead;
      shares &= kShared;
    }
    return true;
  }

 protected:
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override {
    co_await save(offset, in.size());
    co_await JobFilter::do_write(offset, in, flags);
  }
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override {
    co_await save(offset, length);
    co_await JobFilter::do_write_zeroes(offset, length, flags);
  }
  Task<void> do_discard(uint64_t offset, uint64_t length) override {
    co_await save(offset, length);
    co_await JobFilter::do_discard(offset, length);
  }

 private:
  Task<bool> all_zero(uint64_t offset, uint64_t bytes) {
    const Extent found = co_await below()->extent_at(offset, bytes);
    co_return found.zero&& found.length >= bytes;
  }
  // Copies one piece, or as much of it as there is ROOM for; gives how much.
  Task<uint64_t> carry(uint64_t offset, uint64_t bytes, bool zero, MutableByteSpan room,
                       JobSide* side) {
    if (zero) {
      *side = JobSide::kWrite;
      co_return co_await carry_zeroes(offset, bytes);
    }
    bytes = std::min<uint64_t>(bytes, room.size());
    *side = JobSide::kRead;
    co_await below()->read(offset, room.first(bytes));
    *side = JobSide::kWrite;
    if (compress_)
      co_await write_compressed(*target_, offset, room.first(bytes));
    else
      co_await target_->write(offset, room.first(bytes));
    co_return bytes;
  }
  // Zeroes that the target has already are not written: in a new image they would take a table
  // for each part of the disk. Those of a backing file, or of a server, may be others' to change.
  Task<uint64_t> carry_zeroes(uint64_t offset, uint64_t bytes) {
    bool there = false;
    if (!is_remote(*target_)) {
      const Extent found = co_await target_->extent_at(offset, bytes);
      const uint64_t whole = found.length >= bytes ? bytes : align_down(found.length, cluster_);
      there = whole != 0 && found.zero && found.depth == 0;
      bytes = std::min(bytes, std::max(whole, cluster_));
    }
    if (!there) co_await target_->write_zeroes(offset, bytes, {.may_unmap = true});
    co_return bytes;
  }
  Task<void> save(uint64_t offset, uint64_t bytes) {
    const uint64_t begin = align_down(offset, cluster_);
    const uint64_t end = std::min(align_up(offset + bytes, cluster_), length());
    for (uint64_t at = begin; at < end;) {
      const DirtyBitmap::Run run = left_->run_at(at, end - at);
      if (run.length == 0) break;
      JobSide side = JobSide::kRead;
      const CopyPiece piece{.offset = at, .length = run.length};
      if (run.dirty) co_await save_range(piece, MutableByteSpan(), &side);
      at += run.length;
    }
    if (progress_ && begin < end) co_await progress_->keep(begin, end - begin);
  }

  const NodePtr target_;
  const uint64_t cluster_;
  const bool compress_;
  const bool discard_source_;
  const DirtyBitmapPtr left_;
  std::shared_ptr<BackupProgress> progress_;
  DirtyBitmapPtr unsaved_;
  bool stopped_ = false;
};

DirtyBitmapPtr BackupJob::remaining() const {
  return backup_filter_ ? backup_filter_->unsaved() : nullptr;
}

uint64_t BackupJob::cluster_of(const BackupRequest& request) {
  return std::max({kLeastBackupCluster, std::bit_ceil(request.target->limits().cluster_bytes),
                   request.least_cluster});
}

BackupJob::BackupJob(JobOptions options, Graph& graph, BackupRequest request)
    : DiskJob(JobType::kBackup, std::move(options), graph),
      request_(std::move(request)),
      cluster_(cluster_of(request_)) {}

void BackupJob::check(const BackupRequest& request) {
  if (request.source == request.target) invalid("Source and target cannot be the same");
  if (request.source->length() != request.target->length())
    invalid("Source and target image have different sizes");
  if (request.compress && !supports_compression(*request.target))
    invalid("Compression is not supported for this drive ");
}

Task<void> BackupJob::set_up() {
  backup_filter_ = std::make_shared<BackupFilter>(request_, cluster_);
  wanted_ = std::make_shared<DirtyBitmap>("", request_.source->length(), cluster_);
  if (request_.bitmap != nullptr) request_.bitmap->set_busy(true);
  std::vector<NodePtr> held{request_.source};
  co_await graph().drained(std::move(held), [this] { return begin_moment(); });
  co_await use(request_.target, "target", 0, Permissions::kAll, true);
}

// Nobody writes: this is the moment that is copied.
Task<void> BackupJob::begin_moment() {
  const NodePtr& source = request_.source;
  if (const DirtyBitmapPtr& bitmap = request_.bitmap) {
    successor_ = std::make_shared<DirtyBitmap>("", source->length(), bitmap->granularity());
    successor_->set_enabled(bitmap->enabled());
    if (request_.written_since != nullptr) successor_->merge(*request_.written_since);
    source->bitmaps().add(successor_);
    bitmap->set_enabled(false);
  }
  // With other clusters, some would be copied again that were overwritten since.
  if (request_.remaining != nullptr && request_.remaining->granularity() != cluster_)
    invalid("The clusters of the backup are not those that it had when it began");
  if (request_.remaining != nullptr)
    wanted_->merge(*request_.remaining);
  else if (request_.sync == BackupSync::kBitmap)
    wanted_->merge(*request_.bitmap);
  else
    wanted_->mark(0, source->length());
  backup_filter_->left().merge(*wanted_);
  if (request_.store != nullptr) {
    // What is not stable yet is a part of the moment as well.
    co_await source->flush();
    progress_ = std::make_shared<BackupProgress>(request_.store, id(), request_.target,
                                                 backup_filter_->left_bitmap());
    backup_filter_->keep_in(progress_);
  }
  co_await insert(backup_filter_, source, request_.filter_name);
}

// Nothing below the source's own layer is copied.
Task<void> BackupJob::leave_out_lower_layers() {
  Node& source = *request_.source;
  for (uint64_t at = 0; at < source.length();) {
    co_await pause_point();
    uint64_t end = at;
    // Up to the first byte that this layer has.
    while (end < source.length()) {
      const Extent own = co_await source.layer_extent_at(end, source.length() - end);
      if (own.allocated) break;
      end += own.length;
    }
    const uint64_t begin = align_up(at, cluster_);
    const uint64_t clean_end = end == source.length() ? end : align_down(end, cluster_);
    if (clean_end > begin) {
      wanted_->clean(begin, clean_end - begin);
      backup_filter_->left().clean(begin, clean_end - begin);
    }
    while (end < source.length()) {
      const Extent own = co_await source.layer_extent_at(end, source.length() - end);
      if (!own.allocated) break;
      end += own.length;
    }
    at = end;
  }
}

Task<void> BackupJob::run() {
  if (request_.sync == BackupSync::kTop) co_await leave_out_lower_layers();
  if (request_.sync == BackupSync::kNone) {
    add_total(request_.source->length());
    while (true) {
      co_await pause_point();
      co_await idle(std::chrono::seconds(3600));
    }
  }
  add_total(wanted_->dirty_bytes());
  CopySettings settings;
  settings.unit = cluster_;
  settings.most = std::max(kBackupPieceBytes, cluster_);
  if (request_.most_chunk != 0)
    settings.most = std::clamp(align_down(request_.most_chunk, cluster_), cluster_, settings.most);
  settings.requests = std::min(request_.workers, kMostBackupRequests);
  settings.on_read = request_.on_source_error;
  settings.on_write = request_.on_target_error;
  CopyEngine engine(*this, graph().context(), wanted_, *backup_filter_, settings);
  co_await engine.run();
  co_await request_.target->flush();
}

// --- the bitmap afterwards ---

Task<void> BackupJob::commit() {
  settle_bitmap(true);
  co_return;
}

Task<void> BackupJob::abort() {
  settle_bitmap(false);
  co_return;
}

void BackupJob::settle_bitmap(bool success) {
  if (request_.bitmap == nullptr || std::exchange(settled_, true)) return;
  DirtyBitmap& bitmap = *request_.bitmap;
  bitmap.set_busy(false);
  if (successor_ == nullptr) return;
  if (success && request_.bitmap_mode != BitmapMode::kNever) bitmap.clear();
  if (!success && request_.bitmap_mode == BitmapMode::kAlways) {
    bitmap.clear();
    bitmap.merge(backup_filter_->left());
  }
  // From here on the bitmap records again, before what the other one has is taken over.
  bitmap.set_enabled(successor_->enabled());
  bitmap.merge(*successor_);
  request_.source->bitmaps().forget(successor_);
}

Task<void> BackupJob::tear_down() {
  settle_bitmap(false);
  if (progress_) co_await progress_->end(false);
  backup_filter_->stop();
}

}  // namespace cairn::live
