#include "job/history.h"

#include <algorithm>
#include <cstring>

#include "base/arith.h"
#include "base/buffer.h"
#include "block/capabilities/snapshot_store.h"
#include "block/capabilities/vm_state_area.h"
#include "job/difference.h"

namespace cairn {
namespace {
constexpr uint64_t kHistorySector = 512;
constexpr uint64_t kHistoryPieceBytes = 1 << 20;
}  // namespace

CopyHistory::CopyHistory(Context& context, NodePtr source, NodePtr earlier, NodePtr target,
                         ConvertOptions options, const CancelSource& cancel)
    : context_(context),
      source_(std::move(source)),
      earlier_(std::move(earlier)),
      target_(std::move(target)),
      options_(options),
      cancel_(cancel),
      snapshots_(snapshots_of(*source_)) {
  total_ = align_up(source_->length(), kHistorySector);
  for (const SnapshotRecord& one : snapshots_) {
    const auto sum = checked_add(total_, align_up(one.disk_bytes, kHistorySector));
    total_ = sum.value_or(UINT64_MAX);
  }
}

Task<void> CopyHistory::run() {
  for (size_t i = 0; i < snapshots_.size(); ++i) {
    co_await show_state(*source_, i);
    if (i != 0) co_await show_state(*earlier_, i - 1);
    try {
      co_await make_state(i);
      co_await copy_machine(snapshots_[i]);
      co_await record_snapshot(*target_, snapshots_[i]);
    } catch (Error& error) {
      throw error.context("snapshot '" + snapshots_[i].name + "'");
    }
  }
  co_await show_state(*source_, {});
  if (!snapshots_.empty()) co_await show_state(*earlier_, snapshots_.size() - 1);
  co_await make_state(snapshots_.size());
  if (earlier_) co_await show_state(*earlier_, {});
}

// The target shows the state before the one with this number, or nothing yet.
Task<void> CopyHistory::make_state(size_t number) {
  const uint64_t length = align_up(source_->length(), kHistorySector);
  if (target_->length() != length) co_await target_->resize({.length = length});
  const auto tell = [this](uint64_t done, uint64_t) {
    if (progress) progress(done_ + done, total_);
  };
  if (number == 0) {
    ConvertOptions options = options_;
    options.zero_target = options.zero_target ||
                          (target_->backing() == nullptr && target_->reads_zero_when_created());
    std::vector<NodePtr> sources(1, source_);
    Convert job(context_, sources, target_, options, cancel_);
    job.progress = tell;
    co_await job.run();
    spend(job.stored());
  } else {
    const DifferenceOptions options{
        .layers = options_.backing_bytes.has_value(),
        .compress = options_.compress,
        .keep_compressed = options_.keep_compressed,
        .most_output = options_.most_output == 0 ? 0 : options_.most_output - written_};
    Difference job(target_, source_, earlier_, options, cancel_);
    job.progress = tell;
    co_await job.run();
    spend(job.written());
  }
  done_ += length;
}

// One byte of the budget is always left: none would mean that there is no end of it.
void CopyHistory::spend(uint64_t bytes) {
  if (options_.most_output != 0) written_ = std::min(written_ + bytes, options_.most_output - 1);
}

// The state of the machine, without its holes.
Task<void> CopyHistory::copy_machine(const SnapshotRecord& snapshot) {
  if (snapshot.vm_state_bytes == 0) co_return;
  AlignedBuffer buffer(kHistoryPieceBytes);
  for (uint64_t at = 0; at < snapshot.vm_state_bytes;) {
    cancel_.check();
    const uint64_t rest = snapshot.vm_state_bytes - at;
    const uint64_t hole = co_await vm_state_hole(*source_, at, rest);
    const uint64_t length = hole != 0 ? hole : std::min(rest, kHistoryPieceBytes);
    if (hole == 0) {
      // Encrypted ones have whole sectors.
      const MutableByteSpan piece = buffer.span().first(align_up(length, kHistorySector));
      co_await read_vm_state(*source_, at, piece);
      co_await write_vm_state(*target_, at, piece);
      spend(length);
    }
    at += length;
  }
}

}  // namespace cairn
