// Keeps the disk in "file" readable as it was when the node was opened: what its users overwrite is
// copied to "target" first. A node of snapshot-access above shows the disk of that moment.
//
// What is still to be copied before it may be written is in left_; what belongs to the moment in
// kept_. A range is locked exclusively while it is copied, shared while the moment is read there:
// what was found in left_ stays in "file" until the reader has it.

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <chrono>
#include <utility>

#include "async/detached.h"
#include "async/finally.h"
#include "async/runtime.h"
#include "base/arith.h"
#include "base/buffer.h"
#include "block/capabilities/child_use.h"
#include "block/capabilities/moment.h"
#include "block/capabilities/opened_once.h"
#include "block/driver.h"
#include "block/permissions.h"
#include "filter/filter.h"

namespace cairn {
namespace {

const OptionSchema kCopyBeforeWriteOptions = {
    {"target", OptionType::kString, "", "where old data is copied to"},
    {"bitmap.node", OptionType::kString, "", "node that has the bitmap"},
    {"bitmap.name", OptionType::kString, "",
     "bitmap of what belongs to the snapshot; all by default"},
    {"on-cbw-error", OptionType::kString, "break-guest-write",
     "which of the two fails when old data cannot be copied; or break-snapshot"},
    {"cbw-timeout", OptionType::kNumber, "0",
     "seconds after which a copy counts as failed; 0: none"},
    {"min-cluster-size", OptionType::kSize, "0", "bytes that are copied as a whole, at least"},
};

constexpr uint64_t kLeastSaved = 65536;
constexpr uint64_t kMostSaved = 1 << 20;
constexpr uint64_t kLongestTimeout = UINT32_MAX;

struct CopyManner {
  bool break_snapshot = false;
  std::chrono::seconds timeout{0};  // 0: none
  uint64_t cluster = kLeastSaved;
};

class CopyBeforeWriteNode : public FilterNode, public ChildUse, public Moment, public OpenedOnce {
 public:
  using Capabilities = CapabilityList<ChildUse, Moment, OpenedOnce>;

  // CHOSEN: what belongs to the moment; null: everything.
  CopyBeforeWriteNode(OpenContext& request, NodePtr file, NodePtr target, CopyManner manner,
                      const DirtyBitmap* chosen)
      : FilterNode(request, std::move(file)),
        manner_(manner),
        moment_length_(length()),
        target_(target),
        left_("", length(), manner.cluster),
        kept_("", length(), manner.cluster) {
    if (chosen != nullptr)
      kept_.merge(*chosen);
    else
      kept_.mark(0, length());
    left_.merge(kept_);
    mutable_limits().cluster_bytes = manner.cluster;
    set_unbounded(false);
    add_child("target", std::move(target), ChildRole::kExtent);
  }

  // Nothing is needed of the disk while nobody uses it: users may be given the node later.
  bool child_use(std::string_view name, uint8_t& takes, uint8_t& shares) const override {
    constexpr uint8_t kShared = Permissions::kConsistentRead | Permissions::kWriteUnchanged;
    if (name == "target") {
      takes = Permissions::kWrite;
      shares = kShared | Permissions::kWrite;
    } else if (takes != 0 || readers_.load() != 0) {
      takes |= Permissions::kConsistentRead;
      shares &= kShared;
    }
    return true;
  }

  uint64_t moment_length() const override { return moment_length_; }
  void change_readers(int difference) override { readers_.fetch_add(difference); }

  Task<void> read_moment(uint64_t offset, MutableByteSpan out) override {
    RangeLock::Guard guard;
    co_await ranges_.acquire(guard, offset, out.size(), false);
    while (!out.empty()) {
      const DirtyBitmap::Run run = part_at(offset, out.size());
      const MutableByteSpan piece = out.first(run.length);
      co_await (run.dirty ? below() : *target_).read(offset, piece);
      offset += run.length;
      out = out.subspan(run.length);
    }
    // What was read of a snapshot that broke meanwhile may be newer.
    check_whole();
  }

  Task<Extent> moment_extent(uint64_t offset, uint64_t max) override {
    RangeLock::Guard guard;
    co_await ranges_.acquire(guard, offset, std::min(max, moment_length_ - offset), false);
    const DirtyBitmap::Run run = part_at(offset, max);
    const Extent found = co_await (run.dirty ? below() : *target_).extent_at(offset, run.length);
    co_return Extent{.length = std::min(found.length, run.length),
                     .data = found.data,
                     .zero = found.zero,
                     .allocated = true};
  }

  Task<void> discard_moment(uint64_t offset, uint64_t bytes) override {
    const uint64_t begin = align_up(offset, manner_.cluster);
    const uint64_t last = offset + bytes;
    const uint64_t end = last == moment_length_ ? last : align_down(last, manner_.cluster);
    if (begin >= end) co_return;
    RangeLock::Guard guard;
    co_await ranges_.acquire(guard, begin, end - begin, true);
    kept_.clean(begin, end - begin);
    left_.clean(begin, end - begin);
    co_await target_->discard(begin, end - begin);
  }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  bool take_child(std::string_view name, Node& child) override {
    if (name != "target") return FilterNode::take_child(name, child);
    target_ = child.shared_from_this();
    return true;
  }
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override {
    co_await save(offset, in.size());
    co_await below().write(offset, in, flags);
  }
  Task<void> do_write_zeroes(uint64_t offset, uint64_t bytes, WriteFlags flags) override {
    co_await save(offset, bytes);
    co_await below().write_zeroes(offset, bytes, flags);
  }
  Task<void> do_discard(uint64_t offset, uint64_t bytes) override {
    co_await save(offset, bytes);
    co_await below().discard(offset, bytes);
  }
  // What is cut off is copied first; what is added is no part of the moment.
  Task<void> do_resize(ResizeRequest request) override {
    if (request.length < length()) co_await save(request.length, length() - request.length);
    co_await FilterNode::do_resize(request);
  }
  Task<void> do_close() override {
    {
      // Copies for which nobody waits any more have the lock, or wait for it.
      RangeLock::Guard guard;
      co_await ranges_.acquire(guard, 0, UINT64_MAX, true);
    }
    target_ = nullptr;
    co_await FilterNode::do_close();
  }

 private:
  // What a waiting write and the copy it waits for have in common; all on one worker.
  struct Watch {
    Nap nap;
    bool done = false;
    std::exception_ptr error;
  };

  void check_whole() const {
    if (broken_.load()) throw Error(ErrorKind::kInvalid, "The snapshot is broken");
  }
  // Up to where the bytes from OFFSET on, at most MAX, are in one place: dirty, in "file".
  DirtyBitmap::Run part_at(uint64_t offset, uint64_t max) const {
    check_whole();
    const DirtyBitmap::Run kept = kept_.run_at(offset, max);
    if (!kept.dirty) throw Error(ErrorKind::kInvalid, "The snapshot does not have these bytes");
    return left_.run_at(offset, kept.length);
  }

  // Copies what is to be written, or decides what fails instead.
  Task<void> save(uint64_t offset, uint64_t bytes) {
    if (broken_.load()) co_return;
    const uint64_t begin = align_down(offset, manner_.cluster);
    const uint64_t end = std::min(align_up(offset + bytes, manner_.cluster), moment_length_);
    if (begin >= end) co_return;
    const DirtyBitmap::Run run = left_.run_at(begin, end - begin);
    if (!run.dirty && run.length == end - begin) co_return;
    std::exception_ptr error;
    try {
      if (manner_.timeout.count() == 0)
        co_await copy(begin, end);
      else
        co_await copy_in_time(begin, end);
    } catch (...) {
      error = std::current_exception();
    }
    if (!error) co_return;
    if (!manner_.break_snapshot) std::rethrow_exception(error);
    broken_.store(true);
  }

  Task<void> copy(uint64_t begin, uint64_t end) {
    RangeLock::Guard guard;
    co_await ranges_.acquire(guard, begin, end - begin, true);
    const NodePtr target = target_;
    AlignedBuffer buffer;
    for (uint64_t at = begin; at < end && !broken_.load();) {
      DirtyBitmap::Run run = left_.run_at(at, end - at);
      if (run.length == 0) break;
      if (run.dirty) {
        const Extent found = co_await below().extent_at(at, run.length);
        if (found.length < run.length) {
          const uint64_t whole = align_down(found.length, manner_.cluster);
          run.length = found.zero && whole != 0
                           ? whole
                           : std::min(run.length, align_up(found.length, manner_.cluster));
        }
        if (found.zero && found.length >= run.length) {
          co_await target->write_zeroes(at, run.length, {.may_unmap = true});
        } else {
          run.length = std::min(run.length, std::max(kMostSaved, manner_.cluster));
          if (buffer.size() < run.length) buffer = AlignedBuffer(run.length);
          co_await below().read(at, buffer.span().first(run.length));
          co_await target->write(at, buffer.span().first(run.length));
        }
        left_.clean(at, run.length);
      }
      at += run.length;
    }
  }

  // The same, but waits no longer than it may: the copy continues then.
  Task<void> copy_in_time(uint64_t begin, uint64_t end) {
    const auto watch = std::make_shared<Watch>();
    copy_watched(std::static_pointer_cast<CopyBeforeWriteNode>(shared_from_this()), watch, begin,
                 end);
    co_await watch->nap.sleep_for(manner_.timeout);
    if (!watch->done) throw Error::system(ETIMEDOUT);
    if (watch->error) std::rethrow_exception(watch->error);
  }
  static detail::Detached copy_watched(std::shared_ptr<CopyBeforeWriteNode> node,
                                       std::shared_ptr<Watch> watch, uint64_t begin, uint64_t end) {
    try {
      co_await node->copy(begin, end);
    } catch (...) {
      watch->error = std::current_exception();
    }
    watch->done = true;
    co_await watch->nap.wake();
  }

  const CopyManner manner_;
  const uint64_t moment_length_;
  NodePtr target_;
  DirtyBitmap left_;
  DirtyBitmap kept_;
  RangeLock ranges_;
  std::atomic<bool> broken_{false};
  std::atomic<int> readers_{0};
};

CopyManner copy_manner_of(const Options& options) {
  CopyManner manner;
  const std::string policy = options.string("on-cbw-error").value_or("break-guest-write");
  if (policy != "break-guest-write" && policy != "break-snapshot")
    throw Error(ErrorKind::kInvalid,
                "Parameter 'on-cbw-error' does not accept value '" + policy + "'");
  manner.break_snapshot = policy == "break-snapshot";
  const uint64_t timeout = options.number("cbw-timeout").value_or(0);
  if (timeout > kLongestTimeout)
    throw Error(ErrorKind::kInvalid, "Parameter 'cbw-timeout' expects uint32_t");
  manner.timeout = std::chrono::seconds(timeout);
  return manner;
}

uint64_t saved_cluster_of(const Options& options, const Node& target) {
  const uint64_t least = options.size("min-cluster-size").value_or(0);
  if (least > INT64_MAX)
    throw Error(ErrorKind::kInvalid,
                "Cannot create block-copy-state: min-cluster-size too large: " +
                    std::to_string(least) + " > " + std::to_string(INT64_MAX));
  if (least != 0 && !is_power_of_two(least))
    throw Error(ErrorKind::kInvalid,
                "Cannot create block-copy-state: min-cluster-size needs to be a power of 2");
  if (least > DirtyBitmap::kMaxGranularity)
    throw Error(ErrorKind::kTooLarge, "min-cluster-size: at most 2 GiB are copied as a whole");
  return std::max({kLeastSaved, std::bit_ceil(target.limits().cluster_bytes), least});
}

DirtyBitmapPtr chosen_bitmap_of(const OpenContext& request) {
  const auto name = request.options.string("bitmap.name");
  if (!name) return nullptr;
  const std::string node = request.options.string("bitmap.node").value_or("");
  const NodePtr owner = request.flags.nodes ? request.flags.nodes->find_opened(node) : nullptr;
  if (owner == nullptr) throw Error(ErrorKind::kNotFound, "Node '" + node + "' not found");
  DirtyBitmapPtr bitmap = owner->bitmaps().find(*name);
  if (bitmap == nullptr)
    throw Error(ErrorKind::kNotFound, "Dirty bitmap '" + *name + "' not found");
  bitmap->check_readable();
  return bitmap;
}

class CopyBeforeWriteDriver : public Driver {
 public:
  CopyBeforeWriteDriver()
      : Driver({.name = "copy-before-write",
                .title = "copies old data elsewhere before it is overwritten",
                .kind = DriverKind::kFilter,
                .abilities = {.resize = true},
                .capabilities = CopyBeforeWriteNode::Capabilities::ids(),
                .verbatim = true,
                .open_options = kCopyBeforeWriteOptions}) {}
  // The name of the disk below is a name of this one.
  bool shapes_disk(std::string_view) const override { return false; }
  Task<NodePtr> open(OpenContext& request) const override {
    CopyManner manner = copy_manner_of(request.options);
    NodePtr file = co_await request.open_file();
    NodePtr result = co_await on_failure(
        [&]() -> Task<NodePtr> {
          NodePtr target = co_await request.open_image("target");
          NodePtr node = co_await on_failure(
              [&]() -> Task<NodePtr> {
                const DirtyBitmapPtr bitmap = chosen_bitmap_of(request);
                manner.cluster = saved_cluster_of(request.options, *target);
                co_return std::make_shared<CopyBeforeWriteNode>(request, file, target, manner,
                                                                bitmap.get());
              },
              [&] { return target->close(); });
          co_return node;
        },
        [&] { return file->close(); });
    co_return result;
  }
};

}  // namespace

std::unique_ptr<Driver> make_copy_before_write_driver() {
  return std::make_unique<CopyBeforeWriteDriver>();
}

}  // namespace cairn
