#pragma once

#include <vector>

#include "block/capabilities/image_info.h"
#include "block/capabilities/lockable.h"
#include "block/chunked_node.h"
#include "codec/block_index.h"

namespace cairn::packed {

// The blocks of FILE, where it has an index that can be relied on; else nothing. Throws what the
// file says.
Task<std::vector<PackedBlock>> find_blocks(NodePtr file, Packing packing);

// The bytes that a packed file with an index contains: its blocks are unpacked when they are read.
class BlocksNode : public ChunkedNode, public ImageInfo, public Lockable {
 public:
  using Capabilities = FormatCapabilities<ImageInfo, Lockable>;

  // BLOCKS: one at least.
  BlocksNode(Context& context, const Driver& driver, NodePtr file, Packing packing,
             std::vector<PackedBlock> blocks);

  bool reports_cluster_bytes() const override { return false; }
  Value specific_info() const override;
  Task<void> set_permissions(Permissions permissions) override {
    return cairn::set_permissions(file(), permissions);
  }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<Mapping> map(uint64_t offset, uint64_t length) override;
  Task<EncodedChunk> chunk(uint64_t number) override;
  void decode(const EncodedChunk& chunk, ByteSpan encoded, MutableByteSpan out) const override;
  std::string name_of(uint64_t number) const override;

 private:
  const Packing packing_;
  const std::vector<PackedBlock> blocks_;
};

}  // namespace cairn::packed
