// src/filter: nodes that pass through to their one child "file" and do something on the way: record
// what is written, fail on purpose. May include src/block and below; one filter knows nothing of
// another.
#pragma once

#include "block/block.h"

namespace cairn {

// Passes everything on. Filters override what they care about.
class FilterNode : public Node {
 public:
  FilterNode(OpenContext& request, NodePtr file);

  bool reads_zero_when_created() const override { return file_->reads_zero_when_created(); }

 protected:
  Node& below() const { return *file_; }
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override;
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override;
  Task<void> do_discard(uint64_t offset, uint64_t length) override;
  Task<void> do_flush() override;
  Task<Extent> do_extent(uint64_t offset, uint64_t max) override;
  Task<void> do_resize(ResizeRequest request) override;
  // What grows by being written has grown below as well.
  void follow_length() { set_length(file_->length()); }
  bool take_child(std::string_view name, Node& child) override;

 private:
  Node* file_;
};

// The options by which NODE could be opened again.
Value options_of(const Node& node);

}  // namespace cairn
