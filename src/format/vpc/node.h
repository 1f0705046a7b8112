// src/format/vpc: the VHD images of Virtual PC, Hyper-V and Azure. layout.h holds footer, header
// and parent locators as pure types; geometry.h the cylinders, heads and sectors of a size; node.h
// is the open image (open.cc, mapper.cc: mapping and room for writes, resize.cc, check.cc);
// driver.cc registers the format. May include src/block and below.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "async/sync.h"
#include "block/block_table.h"
#include "block/capabilities/backing_link.h"
#include "block/capabilities/checkable.h"
#include "block/capabilities/parent_link.h"
#include "block/format_node.h"
#include "block/open.h"
#include "format/vpc/layout.h"

namespace cairn {

// An open VHD image.
//
// What a crash may leave behind: space that no block uses, and a file without the footer at its
// end; the copy at its start then counts.
//  1. A new block's bitmap, its data and the footer after it are written and flushed before the
//     block allocation table points to it.
//  2. In differencing images data is flushed before the bitmap says that it is there.
//  3. A table in another place is written before the header that names it, the header before the
//     footers that need its length.
class VpcNode : public FormatOf<BackingName, BackingLink, ParentLink, Checkable> {
 public:
  using FormatOf::FormatOf;

  // Reads and checks footer, header and table. Throws.
  Task<void> load(OpenContext& request);

  bool reads_zero_when_created() const override { return footer_.kind != vpc::Kind::kDifferencing; }
  std::string backing_name() const override { return parent_; }
  Task<void> change_backing(std::string name, std::string format) override;
  Task<void> adopt_parent(Node* parent) override;
  std::string backing_format() const override { return parent_.empty() ? "" : "vpc"; }
  Task<CheckResult> check(CheckRequest request) override;
  const vpc::Footer& footer() const { return footer_; }

 protected:
  Task<Mapping> map(uint64_t offset, uint64_t length) override;
  Task<Grant> grant(uint64_t offset, uint64_t length, bool exclusive) override;
  Task<void> publish(Grant grant) override;
  Task<void> flush_mapped() override;
  Task<void> do_resize(ResizeRequest request) override;
  Task<void> do_close() override;
  bool data_may_be_sparse() const override { return fixed(); }

 private:
  bool fixed() const { return footer_.kind == vpc::Kind::kFixed; }
  bool differencing() const { return footer_.kind == vpc::Kind::kDifferencing; }

  // open.cc
  Task<void> load_fixed(OpenContext& request);
  Task<void> load_dynamic(OpenContext& request);
  void make_table();
  Task<void> check_table();
  Task<void> open_parent(OpenContext& request);
  Task<std::string> parent_path();

  // mapper.cc
  Task<uint32_t> entry(uint64_t block) { return table_->entry(block); }
  // Whether the sector at guest OFFSET is in this file, and for how many bytes on, within the block
  // and LENGTH, the answer holds. For differencing images.
  Task<bool> sectors_here(uint32_t entry, uint64_t offset, uint64_t length, uint64_t* run);
  Task<void> mark_sectors(uint32_t entry, uint64_t begin, uint64_t end);
  uint64_t data_of(uint32_t entry) const { return entry * vpc::kSector + header_.bitmap_bytes(); }
  Task<void> write_footer(uint64_t offset);

  // resize.cc
  Task<void> move_table(uint32_t entries);

  // rename.cc
  void check_new_parent(bool none) const;

  vpc::Footer footer_;
  vpc::DynamicHeader header_;
  std::string parent_;
  std::unique_ptr<FlatTable<uint32_t, std::endian::big>> table_;
  std::unique_ptr<TableCache> bitmaps_;
  Mutex end_mutex_;               // end_ and the footer there
  uint64_t end_ = 0;              // where the next block, and now the footer, begins
  uint64_t virgin_ = UINT64_MAX;  // host offsets from here on were never written
  bool overlapping_ = false;      // two entries share space: nothing may be written
};

}  // namespace cairn
