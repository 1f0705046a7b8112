#include <fmt/core.h>

#include <unordered_map>

#include "base/arith.h"
#include "block/context.h"
#include "block/driver.h"
#include "block/work_report.h"
#include "format/qed/node.h"

namespace cairn {

using namespace qed;

namespace {

constexpr uint64_t kPieceBytes = 64 << 10;  // of a table, at a time
constexpr unsigned kMostLines = 100;

// Clusters of the file that are in use: words of 64, those that have any.
class UsedClusters {
 public:
  // False when it was in use already.
  bool take(uint64_t cluster) {
    uint64_t& word = words_[cluster / 64];
    const uint64_t bit = uint64_t{1} << (cluster % 64);
    if ((word & bit) != 0) return false;
    word |= bit;
    ++count_;
    return true;
  }
  uint64_t count() const { return count_; }

 private:
  std::unordered_map<uint64_t, uint64_t> words_;
  uint64_t count_ = 0;
};

}  // namespace

// One pass over all tables of an image; nobody else uses it meanwhile.
class QedChecker {
 public:
  QedChecker(QedNode& image, CheckRequest request)
      : image_(image),
        header_(image.header_),
        request_(std::move(request)),
        file_bytes_(image.file_->length()) {}

  Task<CheckResult> run() {
    result_.total_clusters = div_ceil(header_.size, header_.cluster_size);
    for (uint64_t i = 0; i < header_.table_size; ++i)
      used_.take(header_.l1_offset / header_.cluster_size + i);
    co_await walk(header_.l1_offset, "L1", true);
    if (result_.check_errors == 0) {
      const uint64_t clusters = align_up(file_bytes_, 512) / header_.cluster_size;
      const uint64_t data =
          clusters - std::min(clusters, header_.data_begin() / header_.cluster_size);
      result_.leaks = data - std::min(data, used_.count());
    }
    co_return result_;
  }

 private:
  bool repairs() const { return request_.repair != CheckRequest::Repair::kNone; }

  void finding(uint64_t count, const std::string& text) {
    result_.corruptions += count;
    // Others only count.
    if (!request_.report || !request_.extensions) return;
    if (lines_ < kMostLines) request_.report("ERROR " + text);
    if (lines_ == kMostLines) request_.report("More errors are counted, not listed");
    ++lines_;
  }

  // All entries of the table at TABLE; those that cannot be become 0 when that is asked for.
  Task<void> walk(uint64_t table, std::string name, bool is_l1) {
    std::vector<std::byte> bytes;
    uint64_t previous = 0;
    for (uint64_t done = 0; done < header_.table_bytes(); done += bytes.size()) {
      bytes.resize(std::min(kPieceBytes, header_.table_bytes() - done));
      try {
        co_await image_.file_->read(table + done, bytes);
      } catch (const Error& failed) {
        ++result_.check_errors;
        if (request_.report && request_.extensions) request_.report("ERROR " + failed.message());
        co_return;
      }
      bool changed = false;
      for (uint64_t i = 0; i < bytes.size() / 8; ++i) {
        const auto entry = load_le<uint64_t>(bytes, i * 8);
        if (entry == kUnallocated || (!is_l1 && entry == kZeroCluster)) continue;
        const uint64_t index = done / 8 + i;
        if (is_l1) report_work(image_.context(), "check", index, header_.table_bytes() / 8);
        const bool valid = is_l1 ? header_.valid_table(entry, file_bytes_)
                                 : header_.valid_cluster(entry, file_bytes_);
        if (!is_l1) {
          ++result_.allocated_clusters;
          if (previous != 0 && entry != previous + header_.cluster_size)
            ++result_.fragmented_clusters;
          previous = entry;
        }
        if (!valid) {
          finding(1, fmt::format("entry {} of the {} table points to {}, which is outside the file",
                                 index, name, entry));
          if (!repairs()) continue;
          store_le<uint64_t>(bytes, i * 8, kUnallocated);
          if (is_l1 && index < image_.l1_count_) image_.l1_[index].store(kUnallocated);
          ++result_.corruptions_fixed;
          changed = true;
        } else if (is_l1) {
          co_await visit_table(entry, index);
        } else if (!used_.take(entry / header_.cluster_size)) {
          finding(1, fmt::format("the cluster at {} has a second use in entry {} of the {} table",
                                 entry, index, name));
        }
      }
      if (changed) co_await image_.file_->write(table + done, bytes);
    }
    if (is_l1)
      report_work(image_.context(), "check", header_.table_bytes() / 8, header_.table_bytes() / 8);
  }

  Task<void> visit_table(uint64_t table, uint64_t index) {
    uint64_t shared = 0;
    for (uint64_t i = 0; i < header_.table_size; ++i)
      if (!used_.take(table / header_.cluster_size + i)) ++shared;
    if (shared != 0) {
      finding(shared,
              fmt::format("the L2 table at {} of entry {} overlaps something else", table, index));
      co_return;
    }
    co_await walk(table, fmt::format("L2 (at {})", table), false);
  }

  QedNode& image_;
  const Header& header_;
  CheckRequest request_;
  const uint64_t file_bytes_;
  UsedClusters used_;
  CheckResult result_;
  unsigned lines_ = 0;
};

// Entries that point nowhere are dropped by a repair of either kind; space that nobody uses, and
// what has two uses, stays. The mark is taken back when nothing is wrong any more.
Task<CheckResult> QedNode::check(CheckRequest request) {
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  const bool repair = request.repair != CheckRequest::Repair::kNone && !read_only();
  if (!read_only()) co_await flush_mapped();
  QedChecker checker(*this, std::move(request));
  CheckResult result = co_await checker.run();
  if (!repair) co_return result;
  co_await file_->flush();
  make_cache();
  result.corruptions -= result.corruptions_fixed;
  keep_mark_ = result.corruptions != 0 || result.check_errors != 0;
  if (!keep_mark_) co_await clear_need_check();
  co_return result;
}

}  // namespace cairn
