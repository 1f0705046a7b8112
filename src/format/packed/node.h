// src/format/packed: files that are compressed as a whole, seen as what they contain. Those with an
// index of several blocks are read in place (blocks_node.h). All others are unpacked once, to an
// unnamed temporary file, when they are opened.
#pragma once

#include <memory>

#include "block/capabilities/image_info.h"
#include "block/capabilities/lockable.h"
#include "block/node.h"
#include "block/open.h"
#include "block/spool.h"
#include "codec/unpack.h"

namespace cairn::packed {

// The bytes that a packed file contains, to be read.
class PackedNode : public Node, public ImageInfo, public Lockable {
 public:
  using Capabilities = CapabilityList<ImageInfo, Lockable>;

  PackedNode(Context& context, const Driver& driver, NodePtr file, Packing packing);

  // Unpacks the whole file. Throws kCorrupt that names file and place, kNoSpace, kTooLarge when the
  // content is more than may be unpacked, kCancelled.
  Task<void> unpack();

  bool reports_cluster_bytes() const override { return false; }
  Value specific_info() const override;
  Task<void> set_permissions(Permissions permissions) override {
    return cairn::set_permissions(*file(), permissions);
  }

 protected:
  void* find_capability(CapabilityId id) override { return Capabilities::find(this, id); }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override;
  Task<void> do_close() override;

 private:
  // Unpacks IN; called on a pool thread.
  void unpack_piece(Unpacker& unpacker, ByteSpan in, bool last);

  Packing packing_;
  std::unique_ptr<Spool> spool_;
  uint64_t consumed_ = 0;
  std::vector<std::byte> buffer_;
  NodePtr content_;  // of the spool
};

}  // namespace cairn::packed
