// src/format/bochs: the redologs of Bochs: growing disks, and undoable and volatile ones over a
// flat base. Read only. layout.h holds the header as a pure type; node.h is the open image
// (node.cc); driver.cc registers the format. May include src/block and below.
#pragma once

#include <memory>
#include <vector>

#include "block/capabilities/backing_link.h"
#include "block/capabilities/checkable.h"
#include "block/capabilities/image_info.h"
#include "block/format_node.h"
#include "block/open.h"
#include "block/table_cache.h"
#include "format/bochs/layout.h"

namespace cairn {

// An open Bochs redolog, read only: nothing is ever changed in the file.
class BochsNode : public FormatOf<ImageInfo, BackingName, Checkable> {
 public:
  using FormatOf::FormatOf;

  // Reads and checks header and catalog, and opens the base of an undoable or volatile image.
  // Throws; what was opened belongs to the node then as well.
  Task<void> load(OpenContext& request);

  std::string backing_name() const override { return base_; }
  std::string backing_format() const override { return base_.empty() ? "" : "raw"; }
  bool reports_cluster_bytes() const override { return false; }
  std::optional<bool> dirty_flag() const override { return std::nullopt; }
  Task<CheckResult> check(CheckRequest request) override;

 protected:
  Task<Mapping> map(uint64_t offset, uint64_t length) override;

 private:
  Task<bool> is_whole(uint64_t begin, uint64_t end);
  uint64_t place_of(uint32_t number) const {
    return header_.data_begin() + number * header_.stride();
  }

  bochs::Header header_;
  std::string base_;  // name of the flat base; empty: zeroes
  std::vector<uint32_t> catalog_;
  std::unique_ptr<TableCache> bitmaps_;
};

}  // namespace cairn
