// src/format/parallels: the disks of Parallels and Virtuozzo. layout.h holds the header and the
// format extension as pure types, bundle.h the descriptor of a directory; node.h is one open image
// (open.cc: opening, extension.cc: what follows the header, mapper.cc: mapping and room for writes,
// check.cc), bundle_node.h the disk of a directory with its snapshots; driver.cc registers the
// format. May include src/block, src/crypto and below.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "async/sync.h"
#include "block/capabilities/checkable.h"
#include "block/capabilities/image_info.h"
#include "block/format_node.h"
#include "block/open.h"
#include "block/table_cache.h"
#include "format/parallels/layout.h"

namespace cairn {

// An open Parallels image.
//
// What a crash may leave behind: the mark of an image in use, which makes the next one who writes
// check it, and clusters that nobody points to.
//  1. The mark is on disk, and an extension that would become untrue is given up by the same write,
//     before anything else changes.
//  2. The file is long enough for a cluster, and its data is flushed, before an entry points to it.
//  3. A cluster that was given up is given to others only after the table is flushed.
//  4. The file is cut, and the mark taken back, after everything else when the image is closed.
class ParallelsNode : public FormatOf<ImageInfo, Checkable> {
 public:
  using FormatOf::FormatOf;

  // Reads and checks the header; for writing also the table, which is repaired where it has to be.
  // Throws; what was opened belongs to the node then as well.
  Task<void> load(OpenContext& request);

  bool reads_zero_when_created() const override { return true; }
  bool reports_cluster_bytes() const override { return false; }
  std::optional<bool> dirty_flag() const override { return std::nullopt; }
  Task<CheckResult> check(CheckRequest request) override;

 protected:
  Task<Mapping> map(uint64_t offset, uint64_t length) override;
  Task<Grant> grant(uint64_t offset, uint64_t length, bool exclusive) override;
  Task<void> publish(Grant grant) override;
  Task<void> abandon(Grant grant) override;
  Task<uint64_t> zero_mapped(uint64_t offset, uint64_t length, bool may_unmap) override;
  Task<void> discard_mapped(uint64_t offset, uint64_t length) override;
  Task<void> flush_mapped() override;
  Task<void> do_close() override;

 private:
  // A piece of the file, in bytes.
  struct Range {
    uint64_t begin = 0;
    uint64_t length = 0;
  };
  // Clusters in a row; COUNT 0: there are none.
  struct Room {
    uint64_t host = 0;
    uint64_t count = 0;
    bool zero = false;  // never written
  };
  // What the table says; indices are in ascending order, and entries in WRONG lists not in CLUSTERS
  // but for those that the file cuts.
  struct Survey {
    std::vector<uint64_t> clusters;  // by place: entry << 32 | index
    std::vector<uint32_t> outside;   // end past the end of the file
    std::vector<uint32_t> below;     // begin before the data
    std::vector<uint32_t> shared;    // are where another one is
    uint64_t end = 0;                // of the last cluster
    uint64_t allocated = 0;
    uint64_t fragmented = 0;
    bool sound() const { return outside.empty() && below.empty() && shared.empty(); }
  };

  // open.cc
  Task<void> prepare_writing(bool for_check);
  Task<void> warn_of_flags();

  // extension.cc
  Task<void> load_extension();
  Task<void> load_bitmap(const parallels::BitmapFeature& feature);

  // mapper.cc
  uint64_t cluster() const { return header_.cluster_bytes(); }
  uint64_t host_of(uint32_t entry) const { return entry * header_.unit(); }
  Task<uint32_t> entry(uint64_t index);
  Task<void> set_entries(uint64_t first, uint64_t count, uint32_t value, uint32_t step);
  Task<void> write_header();
  Task<void> begin_change();
  Task<void> make_long_enough(uint64_t end);
  Task<Room> take(uint64_t wanted);
  void add_hole(Range range);
  Task<void> give_up(uint64_t first, uint64_t count);

  // check.cc
  Task<void> each_entry(std::function<void(uint32_t index, uint32_t entry)> visit);
  Task<Survey> survey_clusters();
  void settle_data_begin(const Survey& found);
  void find_holes(const Survey& found);
  Task<CheckResult> examine(CheckRequest request);
  Task<void> repair(const Survey& found);
  Task<void> drop_tail(uint64_t end);
  Task<void> separate(const std::vector<uint32_t>& shared);

  parallels::Header header_;
  std::unique_ptr<TableCache> table_;
  uint64_t data_begin_ = 0;
  bool data_off_wrong_ = false;
  bool unclean_ = false;  // somebody wrote to the image and did not close it
  std::vector<Range> extension_;
  std::string extension_fault_;  // why the extension cannot be used

  // For writing only.
  std::atomic<bool> changed_{false};
  bool clear_mark_ = false;
  Mutex change_mutex_;
  uint64_t prealloc_bytes_ = 0;
  bool prealloc_falloc_ = true;
  Mutex taking_;
  std::mutex holes_mutex_;
  std::map<uint64_t, uint64_t> holes_;  // begin and length of what is free below end_
  std::vector<Range> given_up_;         // free once the table is on disk
  uint64_t end_ = 0;                    // of what is in use
  uint64_t virgin_ = UINT64_MAX;        // from here on the file reads as zeroes
};

}  // namespace cairn
