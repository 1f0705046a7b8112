// src/format/vhdx: the VHDX images of Hyper-V and Windows. layout.h holds headers, region table,
// metadata, locators and the geometry as pure types; log_reader.h finds what a log holds, overlay.h
// shows a file as it will be after replay; pages.h is the cache of metadata, journal.h writes it
// through headers and log; node.h is the open image (open.cc, mapper.cc: mapping, space.cc: room
// for writes, resize.cc, check.cc); create.cc writes new images; driver.cc registers the format.
// May include src/block and below.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <unordered_set>

#include "async/sync.h"
#include "block/capabilities/backing_link.h"
#include "block/capabilities/checkable.h"
#include "block/capabilities/image_info.h"
#include "block/capabilities/parent_link.h"
#include "block/format_node.h"
#include "block/open.h"
#include "format/vhdx/journal.h"
#include "format/vhdx/layout.h"
#include "format/vhdx/pages.h"

namespace cairn {

// An open VHDX image.
//
// A crash at any moment leaves an image that is whole once its log has been replayed, which every
// opening does. Order: data of new blocks, then the log entry that names them (Journal has its
// rules); space that is given up is used again after the entry that says so is durable; in
// differencing images the bitmap of a block gets to the disk before the table says that it counts,
// or with it.
class VhdxNode : public FormatOf<ImageInfo, BackingName, BackingLink, ParentLink, Checkable> {
 public:
  using FormatOf::FormatOf;

  // Reads and checks headers, log, region table, metadata and the table of blocks. Throws.
  Task<void> load(OpenContext& request);

  bool reads_zero_when_created() const override { return !parameters_.has_parent; }
  std::string backing_name() const override { return parent_; }
  Task<void> change_backing(std::string name, std::string format) override;
  Task<void> adopt_parent(Node* parent) override;
  std::string backing_format() const override { return parent_.empty() ? "" : "vhdx"; }
  Task<CheckResult> check(CheckRequest request) override;
  Value specific_info() const override;
  std::optional<bool> dirty_flag() const override { return pending_log_; }
  const vhdx::Parameters& parameters() const { return parameters_; }
  // Changes with the content of the disk; children name it.
  Uuid data_write_id() const { return journal_->header().data_write; }

 protected:
  Task<Mapping> map(uint64_t offset, uint64_t length) override;
  Task<Grant> grant(uint64_t offset, uint64_t length, bool exclusive) override;
  Task<void> publish(Grant grant) override;
  Task<void> abandon(Grant grant) override;
  Task<uint64_t> zero_mapped(uint64_t offset, uint64_t length, bool may_unmap) override;
  Task<void> discard_mapped(uint64_t offset, uint64_t length) override;
  Task<void> flush_mapped() override;
  Task<void> do_resize(ResizeRequest request) override;
  Task<void> do_close() override;
  // Blocks are large, and what was never written in them is a hole.
  bool data_may_be_sparse() const override { return true; }

 private:
  // open.cc
  Task<vhdx::CurrentHeader> load_header(bool salvage);
  Task<void> replay(vhdx::CurrentHeader& header, const OpenContext& request);
  Task<void> load_regions(const vhdx::Header& header, bool salvage);
  Task<void> load_metadata();
  Task<void> scan_table(bool tolerant);
  Task<void> open_parent(OpenContext& request);
  std::string name_of_parent() const;

  // mapper.cc
  uint64_t block_bytes() const { return parameters_.block_bytes; }
  Task<vhdx::PagePtr> table_page(uint64_t index);
  Task<vhdx::Entry> entry_at(uint64_t index);
  Task<vhdx::Entry> entry(uint64_t block) { return entry_at(geometry_.index_of(block)); }
  void check_entry(uint64_t block, vhdx::Entry entry) const;
  Task<uint64_t> bitmap_of(uint64_t block);
  Task<bool> sectors_here(uint64_t block, uint64_t begin, uint64_t end, uint64_t* run);
  // Adds VALUE as entry INDEX; inside of Pages::change().
  void set_entry(const vhdx::PagePtr& page, uint64_t index, vhdx::Entry value) {
    pages_->set_entry(page, index % (vhdx::kSectorBytes / 8), value.value);
  }

  // space.cc
  void note_used(std::vector<vhdx::Room> used);
  Task<uint64_t> take_room(uint64_t bytes);
  void give_room(vhdx::Room room);
  Task<void> begin_change();
  Task<void> commit();
  Task<void> release_block(uint64_t block, vhdx::State state);
  Task<void> publish_partial(const Grant& place);
  // Cuts free space off the end of the file.
  Task<void> trim_file();

  // check.cc
  std::vector<vhdx::Room> gaps();
  Task<uint64_t> leaked_blocks();
  struct Findings;
  Task<void> check_table_entry(uint64_t index, Findings& findings);
  bool check_place(const std::string& name, vhdx::Room place, uint64_t needed,
                   Findings& findings) const;
  void check_overlaps(const std::string& name, vhdx::Room place, Findings& findings) const;
  Task<void> repair_tables(std::vector<uint64_t> untidy);
  Task<uint64_t> release_leaks();

  // resize.cc
  Task<void> grow(uint64_t size);
  Task<void> shrink(uint64_t size);
  Task<void> move_table(const vhdx::Geometry& larger, uint64_t size);
  Task<std::vector<vhdx::PagePtr>> region_pages(const vhdx::RegionTable& table,
                                                std::vector<std::byte>& bytes);
  Task<void> store_size(uint64_t size);

  // rename.cc
  void check_new_parent(bool none) const;
  Task<void> store_locator(const std::map<std::string, std::string>& values);

  // file_ is the child, or what shows it after replay.
  NodePtr overlay_;
  vhdx::Parameters parameters_;
  vhdx::Geometry geometry_;
  vhdx::RegionTable regions_;
  vhdx::Region table_;      // where the block allocation table is
  uint64_t size_item_ = 0;  // where in the file the size of the disk is
  std::map<std::string, std::string> locator_;
  std::string parent_;
  std::string creator_;
  std::unique_ptr<vhdx::Pages> pages_;
  std::unique_ptr<vhdx::Journal> journal_;
  std::unordered_set<uint64_t> shared_;  // places that more than one block has
  std::string damage_;                   // why nothing may be written; empty: nothing is wrong
  bool pending_log_ = false;             // replayed in memory only
  bool replayed_ = false;                // on opening, in the file
  bool log_damaged_ = false;
  std::atomic<bool> has_log_{true};
  bool region_damaged_[2] = {};

  Mutex room_mutex_;
  std::mutex free_mutex_;
  std::map<uint64_t, uint64_t> free_;  // by where it begins: bytes
  uint64_t end_ = 0;                   // the file's, in whole MiB
  uint64_t first_block_ = UINT64_MAX;  // the lowest place of a block
  Mutex bitmap_mutex_;                 // making new bitmap blocks
};

}  // namespace cairn
