#include "job/live/mirror.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/arith.h"
#include "block/capabilities/backing_link.h"
#include "block/dirty_bitmap.h"
#include "block/graph/reopen.h"

namespace cairn::live {
namespace {

constexpr uint64_t kBufferBytes = 16 << 20;
constexpr uint64_t kMirrorPieceBytes = 1 << 20;
constexpr uint64_t kLeastGranularity = 4096;
constexpr uint64_t kGranularity = 65536;
constexpr auto kLookPeriod = std::chrono::milliseconds(50);
// What remains is copied while the users wait, once it is so little or does not get less.
constexpr uint64_t kCopiedWhileHeld = 4 << 20;
constexpr unsigned kPassesBeforeBlocking = 3;

uint64_t default_granularity(const Node& target) {
  const uint64_t cluster = target.limits().cluster_bytes;
  if (cluster == 0) return kGranularity;
  return std::clamp(std::bit_floor(cluster), kLeastGranularity, kGranularity);
}

}  // namespace

class MirrorFilter : public JobFilter {
 public:
  MirrorFilter(MirrorJob& job, NodePtr source, NodePtr target, bool commit)
      : JobFilter("mirror_top", source, "backing"),
        job_(job),
        commit_(commit),
        target_(std::move(target)) {}

  void set_active() { active_.store(true); }
  bool active() const { return active_.load(std::memory_order_relaxed); }
  // Wants the range copied, though users may be writing there.
  Task<void> want(uint64_t offset, uint64_t length) {
    RangeLock::Guard guard;
    const Span area = area_of(offset, length);
    co_await ranges().acquire(guard, area.begin, area.length, true);
    job_.dirty_->mark(offset, length);
  }

  // The layers that are being committed do not show for themselves what they did.
  bool child_use(std::string_view, uint8_t& takes, uint8_t& shares) const override {
    if (!commit_) return false;
    takes &= static_cast<uint8_t>(~Permissions::kConsistentRead);
    shares = Permissions::kAll;
    return true;
  }

 protected:
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override {
    const Unfollowed unfollowed(*this);
    if (unfollowed.goes_on()) {
      co_await JobFilter::do_write(offset, in, flags);
      co_return;
    }
    RangeLock::Guard guard;
    const Span area = area_of(offset, in.size());
    co_await ranges().acquire(guard, area.begin, area.length, true);
    const bool clean = is_clean(area);
    co_await JobFilter::do_write(offset, in, flags);
    if (clean) co_await follow(target_->write(offset, in), area);
  }
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override {
    const Unfollowed unfollowed(*this);
    if (unfollowed.goes_on()) {
      co_await JobFilter::do_write_zeroes(offset, length, flags);
      co_return;
    }
    RangeLock::Guard guard;
    const Span area = area_of(offset, length);
    co_await ranges().acquire(guard, area.begin, area.length, true);
    const bool clean = is_clean(area);
    co_await JobFilter::do_write_zeroes(offset, length, flags);
    if (clean)
      co_await follow(target_->write_zeroes(offset, length, {.may_unmap = job_.request_.unmap}),
                      area);
  }
  // Is copied later: what becomes of discarded bytes is each node's own affair.
  Task<void> do_discard(uint64_t offset, uint64_t length) override {
    const Unfollowed unfollowed(*this);
    RangeLock::Guard guard;
    const Span area = area_of(offset, length);
    if (!unfollowed.goes_on()) co_await ranges().acquire(guard, area.begin, area.length, true);
    co_await JobFilter::do_discard(offset, length);
  }

 private:
  struct Span {
    uint64_t begin;
    uint64_t length;
  };
  // A request that began while those to the target did not follow, and that takes no lock: until it
  // has ended, and has marked what it wrote, no area becomes clean by being followed.
  class Unfollowed {
   public:
    explicit Unfollowed(MirrorFilter& filter) : filter_(filter) {
      filter_.unfollowed_.fetch_add(1);
      goes_on_ = !filter_.active_.load();
      if (!goes_on_) filter_.unfollowed_.fetch_sub(1);
    }
    Unfollowed(const Unfollowed&) = delete;
    ~Unfollowed() {
      if (goes_on_) filter_.unfollowed_.fetch_sub(1);
    }
    bool goes_on() const { return goes_on_; }

   private:
    MirrorFilter& filter_;
    bool goes_on_ = false;
  };
  Span area_of(uint64_t offset, uint64_t bytes) const {
    const uint64_t begin = align_down(offset, job_.unit_);
    return {begin, align_up(offset + bytes, job_.unit_) - begin};
  }
  bool is_clean(Span area) const {
    if (unfollowed_.load() != 0) return false;
    const DirtyBitmap::Run run = job_.dirty_->run_at(area.begin, area.length);
    return !run.dirty && area.begin + run.length >= std::min(area.begin + area.length, length());
  }
  // The area, which was equal, is again once WORK is done. Where that fails it stays marked: the
  // job copies it and meets the error itself.
  Task<void> follow(Task<void> work, Span area) {
    try {
      co_await work;
      job_.dirty_->clean(area.begin, area.length);
    } catch (const Error&) {
      job_.notice();
    }
  }

  MirrorJob& job_;
  const bool commit_;
  NodePtr target_;
  std::atomic<bool> active_{false};
  std::atomic<unsigned> unfollowed_{0};
};

MirrorJob::MirrorJob(JobType type, JobOptions options, Graph& graph, MirrorRequest request)
    : DiskJob(type, std::move(options), graph),
      request_(std::move(request)),
      unit_(request_.granularity != 0 ? request_.granularity
                                      : default_granularity(*request_.target)) {}

Task<void> MirrorJob::set_up() {
  const bool commit = type() == JobType::kCommit;
  constexpr uint8_t kRead = Permissions::kConsistentRead;
  constexpr uint8_t kWrite = Permissions::kWrite;
  constexpr uint8_t kUnchanged = Permissions::kWriteUnchanged;
  const NodePtr& source = request_.source;
  co_await use(source, "source", commit ? 0 : kRead, Permissions::kAll, true);
  if (commit) {
    layers_ = layers_above(*source, request_.target.get()).value_or(0);
    graph().freeze(*source, request_.target.get());
    frozen_ = true;
  }
  dirty_ = std::make_shared<DirtyBitmap>("", source->length(), unit_);
  source->bitmaps().add(dirty_);
  // Before a write can follow to the target: that cleans what it wrote.
  if (request_.remaining != nullptr)
    dirty_->merge(*request_.remaining);
  else if (!commit && request_.sync == MirrorSync::kFull)
    dirty_->mark(0, source->length());
  keep_progress();
  mirror_filter_ = std::make_shared<MirrorFilter>(*this, source, request_.target, commit);
  if (request_.write_blocking) mirror_filter_->set_active();
  co_await insert(mirror_filter_, source, request_.filter_name);
  if (commit) {
    for (Node* at = next_below(*source); at != request_.target.get(); at = next_below(*at))
      co_await use(at->shared_from_this(), "intermediate node", 0, kUnchanged | kWrite, true);
    const bool grows = request_.target->length() < source->length();
    const auto takes = static_cast<uint8_t>(kWrite | (grows ? Permissions::kResize : 0));
    co_await use(request_.target, "base", takes, Permissions::kAll, true);
    if (grows) co_await request_.target->resize({.length = source->length()});
  } else {
    co_await use(request_.target, "target", kWrite, kUnchanged, true);
    co_await lend_backing();
  }
}

// From before the users are moved above the filter, for which their requests are waited for: later
// ones are seen.
void MirrorJob::keep_progress() {
  if (request_.store == nullptr) return;
  const bool found = request_.remaining != nullptr || request_.sync == MirrorSync::kNone ||
                     (type() == JobType::kMirror && request_.sync == MirrorSync::kFull);
  progress_ =
      std::make_shared<MirrorProgress>(request_.store, id(), request_.source, request_.target,
                                       dirty_, found ? dirty_.get() : nullptr);
  if (found) progress_->set_known();
  request_.source->bitmaps().set_watch(progress_);
}

// Where only the upper layer is copied, what is around a write, and what zeroes there hide, is that
// of the lower layers: from the beginning the target is over them.
Task<void> MirrorJob::lend_backing() {
  Node* backing = request_.source->backing();
  if (request_.sync == MirrorSync::kFull || backing == nullptr ||
      request_.target->backing() != nullptr || request_.target->as<BackingLink>() == nullptr)
    co_return;
  co_await graph().set_backing(request_.target, backing->shared_from_this());
  lent_ = true;
}

Task<void> MirrorJob::tear_down() {
  if (progress_) {
    co_await progress_->end(switched_);
    request_.source->bitmaps().set_watch(nullptr);
  }
  if (dirty_) request_.source->bitmaps().forget(dirty_);
  if (type() == JobType::kCommit && std::exchange(frozen_, false))
    graph().thaw(*request_.source, request_.target.get());
  if (std::exchange(lent_, false) && !switched_)
    co_await graph().set_backing(request_.target, nullptr);
  if (!request_.target_was_read_only || switched_) co_return;
  co_await let_all();
  co_await reopen_as(graph(), request_.target, false);
}

void MirrorJob::set_write_blocking() {
  check_verb(JobVerb::kChange);
  mirror_filter_->set_active();
}

// Before all is found that has to be copied, it is not known.
DirtyBitmapPtr MirrorJob::remaining() const {
  const bool known = counting_.load() || request_.sync == MirrorSync::kNone;
  return known ? dirty_ : nullptr;
}

bool MirrorJob::write_blocking() const { return mirror_filter_->active(); }

void MirrorJob::refresh_progress() {
  if (counting_.load(std::memory_order_acquire))
    set_total(done() + dirty_->dirty_bytes() + engine_->under_way());
}

std::optional<bool> MirrorJob::actively_synced() const {
  if (type() != JobType::kMirror || !mirror_filter_) return std::nullopt;
  return ready_ && mirror_filter_->active() && dirty_->dirty_bytes() == 0;
}

// --- copying ---

// What has to be copied at first.
Task<void> MirrorJob::find_wanted() {
  const NodePtr& source = request_.source;
  const uint64_t end = source->length();
  if (request_.remaining != nullptr) co_return;
  if (type() == JobType::kMirror && request_.sync != MirrorSync::kTop) co_return;
  const unsigned layers = type() == JobType::kCommit ? layers_ : 1;
  LayerCopy layer(source, 0, layers, request_.target, nullptr);
  for (uint64_t at = 0; at < end;) {
    co_await pause_point();
    const CopyPiece piece = co_await layer.look(at, end - at);
    if (piece.kind != CopyPiece::Kind::kSkip) co_await mirror_filter_->want(at, piece.length);
    at += piece.length;
  }
}

Task<CopyPiece> MirrorJob::look(uint64_t offset, uint64_t max) {
  const Extent found = co_await request_.source->extent_at(offset, max);
  CopyPiece piece{.offset = offset, .length = std::min(found.length, max)};
  if (!found.zero) co_return piece;
  piece.kind = CopyPiece::Kind::kZero;
  const Extent there = co_await request_.target->extent_at(offset, piece.length);
  if (there.zero) piece.kind = CopyPiece::Kind::kSkip;
  piece.length = std::min(piece.length, there.length);
  co_return piece;
}

Task<void> MirrorJob::copy(CopyPiece piece, MutableByteSpan buffer, JobSide* side) {
  RangeLock::Guard guard;
  co_await mirror_filter_->ranges().acquire(guard, piece.offset, piece.length, true);
  const uint64_t end = piece.offset + piece.length;
  for (uint64_t at = piece.offset; at < end;) {
    CopyPiece part{.offset = at, .length = end - at};
    *side = JobSide::kRead;
    // Until the lock was there it may have become data.
    if (piece.kind == CopyPiece::Kind::kZero) part = co_await look(at, end - at);
    if (part.kind == CopyPiece::Kind::kData) {
      AlignedBuffer own(buffer.empty() ? std::min(part.length, kMirrorPieceBytes) : 0);
      const MutableByteSpan room = buffer.empty() ? own.span() : buffer;
      const MutableByteSpan bytes = room.first(std::min<uint64_t>(part.length, room.size()));
      co_await request_.source->read(at, bytes);
      *side = JobSide::kWrite;
      co_await request_.target->write(at, bytes);
      at += bytes.size();
      continue;
    }
    *side = JobSide::kWrite;
    if (part.kind == CopyPiece::Kind::kZero)
      co_await request_.target->write_zeroes(at, part.length, {.may_unmap = request_.unmap});
    at += part.length;
  }
}

Task<void> MirrorJob::run() {
  if (request_.source->length() != request_.target->length() && type() == JobType::kMirror)
    invalid("Source and target image have different sizes");
  co_await find_wanted();
  if (progress_) progress_->set_known();
  const uint64_t buffers = request_.buffer_bytes != 0 ? request_.buffer_bytes : kBufferBytes;
  CopySettings settings;
  settings.unit = unit_;
  settings.most = std::min(kMirrorPieceBytes, std::max(align_down(buffers, unit_), unit_));
  settings.requests = static_cast<unsigned>(std::clamp<uint64_t>(buffers / settings.most, 1, 64));
  settings.on_read = request_.on_source_error;
  settings.on_write = request_.on_target_error;
  settings.watch = progress_.get();
  CopyMethod& method = *this;
  engine_ = std::make_unique<CopyEngine>(*this, graph().context(), dirty_, method, settings);
  counting_.store(true, std::memory_order_release);
  uint64_t before = UINT64_MAX;
  for (unsigned passes = 0;; ++passes) {
    uint64_t left = dirty_->dirty_bytes();
    if (left != 0) {
      co_await engine_->pass();
      left = dirty_->dirty_bytes();
    }
    const bool converges = left < before - before / 4;
    // A disk that is written as fast as it is copied would never be equal.
    if (!ready_ && !converges && passes > kPassesBeforeBlocking) mirror_filter_->set_active();
    before = left == 0 ? UINT64_MAX : left;
    if (!ready_ && left == 0) {
      refresh_progress();
      ready_.store(true);
      become_ready();
    }
    if (ready_ && (completing() || ending_softly()) &&
        (left <= kCopiedWhileHeld || passes > kPassesBeforeBlocking))
      break;
    if (left == 0 && !completing() && !ending_softly()) {
      co_await idle(kLookPeriod);
      passes = 0;
    }
    co_await pause_point();
  }
}

// The rest is copied, and the target takes over, while nobody writes.
Task<void> MirrorJob::prepare() {
  const auto change = co_await graph().change();
  std::vector<NodePtr> held{filter()};
  co_await graph().drained(std::move(held), [this] { return switch_over(); });
}

Task<void> MirrorJob::switch_over() {
  co_await engine_->run();
  co_await request_.target->flush();
  if (!completing()) co_return;
  if (progress_) {
    // From here on the source is the older one: to continue would overwrite what is written now.
    const bool recorded = co_await progress_->end(true);
    if (!recorded)
      throw Error(ErrorKind::kIo,
                  "It cannot be recorded that the job ends, and it would be continued wrongly");
  }
  const bool mirror = type() == JobType::kMirror;
  co_await let_all();
  if (std::exchange(frozen_, false)) graph().thaw(*request_.source, request_.target.get());
  if (mirror && request_.sync != MirrorSync::kFull && request_.target->backing() == nullptr &&
      request_.source->backing() != nullptr)
    co_await graph().set_backing(request_.target, request_.source->backing()->shared_from_this());
  if (request_.replaces != nullptr)
    co_await graph().replace(request_.replaces, request_.target,
                             [](const Root& root) { return root.use().job.empty(); });
  else
    co_await give_users_to(request_.target);
  switched_ = true;
}

}  // namespace cairn::live
