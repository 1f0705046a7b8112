// Encrypted disks as LUKS versions 1 and 2 have them; only version 1 is made.
#pragma once

#include <memory>

#include "block/capabilities/amendable.h"
#include "block/capabilities/image_info.h"
#include "block/format_node.h"
#include "block/luks_volume.h"
#include "block/open.h"

namespace cairn {

// An open LUKS image. It maps every byte to the same place after the payload offset; the request
// layer encrypts, by the offset in the disk.
//
// What a crash may leave behind: data that was being written and not flushed. Nothing else changes
// but key slots, see LuksVolume.
class LuksNode : public FormatOf<ImageInfo, Amendable> {
 public:
  LuksNode(Context& context, const Driver& driver, NodePtr file, NodePtr header);

  // Reads the header, and finds the key unless the opening is for metadata only.
  Task<void> load(OpenContext& request);

  Value specific_info() const override;
  bool encrypted() const override { return true; }
  Task<void> amend(AmendRequest request) override;

 protected:
  Task<Mapping> map(uint64_t offset, uint64_t length) override;
  Task<Grant> grant(uint64_t offset, uint64_t length, bool exclusive) override;
  Task<void> do_resize(ResizeRequest request) override;

 private:
  Node* header_ = nullptr;              // null: the file begins with it
  std::unique_ptr<LuksVolume> volume_;  // null: version 2
  Value luks2_info_;
  uint64_t payload_offset_ = 0;
  bool fixed_ = false;  // the segment has a size of its own
};

}  // namespace cairn
