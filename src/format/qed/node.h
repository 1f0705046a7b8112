// src/format/qed: QEMU's Enhanced Disk. layout.h holds the header as a pure type; node.h is the
// open image (open.cc: opening and the header's changes, mapper.cc: mapping and room for writes,
// check.cc); driver.cc registers the format. May include src/block and below.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "async/sync.h"
#include "base/arith.h"
#include "block/capabilities/backing_link.h"
#include "block/capabilities/checkable.h"
#include "block/format_node.h"
#include "block/open.h"
#include "block/table_cache.h"
#include "format/qed/layout.h"

namespace cairn {

// An open QED image.
//
// What a crash may leave behind: clusters at the end of the file that nobody points to. The format
// has no counters, and the order below needs no check afterwards; the mark NEED_CHECK is set all
// the same, as other programs do, while an image without a backing file is being changed.
//  1. NEED_CHECK is on disk before the first cluster is allocated, and is taken back when the image
//     is closed, after a flush of everything else; not while known damage is left.
//  2. A cluster's data, copied-up parts included, is flushed before an L2 entry points to it, and
//     the file is long enough for all of the cluster.
//  3. A new L2 table is written, as zeroes, and flushed before the L1 table points to it.
//  4. Space is taken at the end of the file only and never given to others.
class QedNode : public FormatOf<BackingName, BackingLink, Checkable> {
 public:
  using FormatOf::FormatOf;

  // Reads and checks header and tables; an image that needs a check gets it when it may be written.
  Task<void> load(OpenContext& request);

  std::string backing_name() const override { return backing_name_; }
  std::string backing_format() const override;
  bool reads_zero_when_created() const override { return true; }
  Task<CheckResult> check(CheckRequest request) override;
  Task<void> change_backing(std::string name, std::string format) override;

 protected:
  std::optional<Unit> short_unit(uint64_t offset) const override {
    return Unit{align_down(offset, cluster()), cluster()};
  }
  bool may_be_cut() const override { return true; }
  Task<Mapping> map(uint64_t offset, uint64_t length) override {
    return locate(offset, length, file_->length());
  }
  // A cluster that the file cuts keeps its place.
  Task<Mapping> survey(uint64_t offset, uint64_t length) override {
    return locate(offset, length, align_up(file_->length(), cluster()));
  }
  Task<Grant> grant(uint64_t offset, uint64_t length, bool exclusive) override;
  Task<void> publish(Grant grant) override;
  Task<uint64_t> zero_mapped(uint64_t offset, uint64_t length, bool may_unmap) override;
  Task<void> flush_mapped() override;
  Task<void> do_resize(ResizeRequest request) override;
  Task<void> do_close() override;

 private:
  friend class QedChecker;

  uint64_t cluster() const { return header_.cluster_size; }

  // open.cc
  Task<void> read_backing_name();
  Task<void> read_l1(uint64_t from, uint64_t count);
  Task<void> repair_at_opening();
  void make_cache();
  Task<void> write_header();
  Task<void> mark_need_check();
  Task<void> clear_need_check();

  // mapper.cc
  Task<Mapping> locate(uint64_t offset, uint64_t length, uint64_t file_bytes);
  uint64_t table_of(uint64_t offset) const;
  Task<TableCache::Ref> block_of(uint64_t table, uint64_t offset);
  void check_not_a_table(uint64_t host, uint64_t length);
  Task<uint64_t> make_table(uint64_t index);
  Task<void> set_entries(uint64_t offset, uint64_t count, uint64_t first, uint64_t step);
  Task<uint64_t> take(uint64_t bytes, bool fills, bool* virgin);

  qed::Header header_;
  std::string backing_name_;
  std::unique_ptr<TableCache> l2_;
  // As much of the L1 table as the disk's size needs, at most 2^21 entries; replaced only while
  // every range is locked.
  std::unique_ptr<std::atomic<uint64_t>[]> l1_;
  uint64_t l1_count_ = 0;

  Mutex tables_mutex_;            // making L2 tables
  Mutex taking_;                  // space at the end of the file
  std::mutex space_mutex_;        // the rest of the group
  uint64_t end_ = 0;              // the next cluster goes here
  uint64_t virgin_ = UINT64_MAX;  // host offsets from here on were never written
  std::vector<uint64_t> tables_;  // offsets of the L2 tables, ascending; for writing only

  Mutex mark_mutex_;
  std::atomic<bool> marked_{false};  // NEED_CHECK is in the header
  bool keep_mark_ = false;           // closing the image does not take it back
};

}  // namespace cairn
