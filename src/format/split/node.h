// src/format/split: raw disks that were cut into numbered files (disk.001, disk.002, …), joined to
// one. pieces.h finds them; node.h is the open disk; driver.cc registers the format. May include
// src/block and below.
#pragma once

#include <string>
#include <vector>

#include "block/capabilities/image_info.h"
#include "block/capabilities/storage_use.h"
#include "block/joined_node.h"
#include "block/open.h"

namespace cairn {

// A raw disk in pieces: each file holds the bytes that follow those of the file before.
class SplitNode : public JoinedNode, public ImageInfo, public StorageUse {
 public:
  using Capabilities = CapabilityList<ImageInfo, StorageUse>;

  SplitNode(Context& context, const Driver& driver, NodePtr file);

  // Opens the other pieces. Throws; what was opened belongs to the node then as well.
  Task<void> load(OpenContext& request);

  Value specific_info() const override;
  Task<std::optional<uint64_t>> allocated_bytes() override;

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }

 private:
  struct Piece {
    uint64_t length = 0;
    std::string name;
    Node* node = nullptr;  // null: not opened, since only the size was asked for
  };

  std::vector<Piece> pieces_;
};

}  // namespace cairn
