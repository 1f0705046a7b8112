// src/format/cloop: compressed loop images, read only. layout.h holds the header and what entries
// of the offset table say, as pure types; node.h is the open image; driver.cc registers the format.
// May include src/block, src/codec and below.
#pragma once

#include <memory>

#include "block/chunked_node.h"
#include "block/table_cache.h"
#include "format/cloop/layout.h"

namespace cairn {

// An open cloop image. Its offset table stays in the file: it is read through once when the image
// is opened, and then, where it is needed, through a bounded cache.
class CloopNode : public ChunkedNode {
 public:
  using ChunkedNode::ChunkedNode;

  // Reads and checks the header and the table. Throws.
  Task<void> load(OpenContext& request);

 protected:
  Task<Mapping> map(uint64_t offset, uint64_t length) override;
  Task<EncodedChunk> chunk(uint64_t number) override;
  void decode(const EncodedChunk& chunk, ByteSpan encoded, MutableByteSpan out) const override;
  std::string name_of(uint64_t number) const override;

 private:
  Task<void> find_header();
  Task<void> check_table();
  Task<uint64_t> word(uint64_t index);

  cloop::Header header_;
  uint64_t table_offset_ = 0;
  std::unique_ptr<TableCache> table_;
};

}  // namespace cairn
