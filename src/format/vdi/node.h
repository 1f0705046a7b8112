// src/format/vdi: VirtualBox disk images, version 1.1. layout.h holds the header as a pure type;
// node.h is the open image (mapper.cc: mapping and room for writes, resize.cc: other sizes and
// closing holes, check.cc); driver.cc registers the format. May include src/block and below.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "async/sync.h"
#include "block/block_table.h"
#include "block/capabilities/backing_link.h"
#include "block/capabilities/checkable.h"
#include "block/capabilities/image_info.h"
#include "block/format_node.h"
#include "block/open.h"
#include "block/places.h"
#include "format/vdi/layout.h"

namespace cairn {

// An open VDI image.
//
// What a crash may leave behind: a counter in the header that is higher than the number of blocks
// in use, and blocks that nobody points to; neither costs data, as a counter is believed only when
// no block of the map is after it.
//  1. Data is written and flushed before the map's sector that points to it is written.
//  2. The header, with its counter, is written before the map's sectors.
//  3. A block that was given up is given to others only after the map's sector is flushed.
//  4. A new place of the map or of the data becomes true by one write of the header's sector.
class VdiNode : public FormatOf<ImageInfo, BackingName, Checkable> {
 public:
  using FormatOf::FormatOf;

  // Reads and checks the header; for writing also the map. Throws.
  Task<void> load(OpenContext& request);

  bool reads_zero_when_created() const override {
    return header_.type != vdi::kStatic && !header_.has_parent();
  }
  std::string backing_name() const override { return parent_; }
  std::string backing_format() const override { return parent_.empty() ? "" : "vdi"; }
  Value specific_info() const override;
  Task<CheckResult> check(CheckRequest request) override;

 protected:
  Task<Mapping> map(uint64_t offset, uint64_t length) override;
  Task<Grant> grant(uint64_t offset, uint64_t length, bool exclusive) override;
  Task<void> publish(Grant grant) override;
  Task<void> abandon(Grant grant) override;
  Task<bool> unmap_unit(uint64_t offset) override;
  Task<void> discard_mapped(uint64_t offset, uint64_t length) override;
  Task<void> flush_mapped() override;
  Task<void> do_resize(ResizeRequest request) override;
  Task<void> do_close() override;
  bool data_may_be_sparse() const override { return header_.type == vdi::kStatic; }

 private:
  // parent.cc
  Task<void> open_parent(OpenContext& request);

  // mapper.cc
  void make_table();
  Task<uint32_t> entry(uint64_t block);
  uint64_t host_of(uint32_t physical) const;
  Task<void> write_header();
  Task<void> read_used();

  // resize.cc
  Task<void> copy_block(uint32_t from, uint32_t to);
  Task<void> make_room_for_map(uint64_t bytes);
  Task<void> grow(uint64_t length, Preallocation mode);
  Task<void> shrink(uint64_t length);
  Task<void> close_holes();
  // Calls VISIT(block, physical) for every block of the map that has data.
  Task<void> each_used(std::function<void(uint64_t block, uint32_t physical)> visit);

  vdi::Header header_;
  std::string parent_;  // the path of the image below; empty: none is known
  std::unique_ptr<FlatTable<uint32_t, std::endian::little>> table_;
  Places blocks_{Places::Next::kEnd};  // of the file; for writing only
  bool counter_trusted_ = true;

  std::mutex mutex_;              // guards the header's counter and what follows
  bool holes_made_ = false;       // blocks were given up: closing fills their places
  uint64_t virgin_ = UINT64_MAX;  // host offsets from here on read as zeroes
};

}  // namespace cairn
