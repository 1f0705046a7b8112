#pragma once

#include <string>

#include "block/capabilities/storage_use.h"
#include "block/node.h"

namespace cairn::ova {

// A part of a file that passes for a file of its own, to be read. The file is somebody else's, who
// keeps it open for as long as this is used.
class SliceNode : public Node, public StorageUse {
 public:
  using Capabilities = CapabilityList<StorageUse>;

  // NAME is for people.
  SliceNode(Node& file, uint64_t offset, uint64_t bytes, std::string name);
  bool reads_zero_when_created() const override { return false; }
  Task<std::optional<uint64_t>> allocated_bytes() override { co_return length(); }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override;
  Task<void> do_close() override { co_return; }

 private:
  Node& file_;
  uint64_t offset_;
};

}  // namespace cairn::ova
