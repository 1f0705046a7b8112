// src/format/sample: a small format of its own, the example of docs/adding-a-driver.md. layout.h
// holds the header and the table as pure types; node.h is the open image; driver.cc registers the
// format. May include src/block and below.
#pragma once

#include "block/block_table.h"
#include "block/capabilities/checkable.h"
#include "block/format_node.h"
#include "block/open.h"
#include "block/places.h"
#include "format/sample/layout.h"

namespace cairn {

// An open image.
//
// What a crash may leave behind: places that no entry names, which are free.
//  1. Data is written and flushed before the part of the table that points to it is written.
//  2. A place that was given up is given to others only after that part of the table is flushed.
class SampleNode : public FormatOf<Checkable> {
 public:
  using FormatOf::FormatOf;

  // Reads and checks the header; for writing also the table. Throws.
  Task<void> load(OpenContext& request);
  Task<CheckResult> check(CheckRequest request) override;

 protected:
  Task<Mapping> map(uint64_t offset, uint64_t length) override;
  Task<Grant> grant(uint64_t offset, uint64_t length, bool exclusive) override;
  Task<void> publish(Grant room) override;
  Task<void> abandon(Grant room) override;
  Task<bool> unmap_unit(uint64_t offset) override;
  Task<void> flush_mapped() override;
  Task<void> do_resize(ResizeRequest request) override;

 private:
  sample::Header header_;
  FlatTable<uint32_t, std::endian::little> table_{this, *file_, "table", sample::kTableOffset,
                                                  sample::kMaxBlocks};
  Places places_{Places::Next::kFree};
};

}  // namespace cairn
