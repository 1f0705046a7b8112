#pragma once

#include <memory>
#include <string>
#include <vector>

#include "async/cancel.h"
#include "block/context.h"
#include "block/node.h"
#include "job/pipe_output.h"

namespace cairn {

// Gives the image in FILE, which was just made in FORMAT and is empty, space for all that SOURCES,
// joined, hold, as a copy would in the order of the disk. The data itself is left out: FILE has the
// tables, and holes for the rest. ZEROES: what is known to be zero takes space as well. False when
// the space is not in the order of the disk. FILE stays open, and is longer by now.
Task<bool> lay_out(Context& context, std::string format, NodePtr file, std::vector<NodePtr> sources,
                   bool zeroes, const CancelSource& cancel);

// The disk of an image that is sent while it is written, in the order of the disk. LAYOUT is the
// image that lay_out() prepared, opened to be read; OUT is the whole file to be, with LAYOUT's file
// held. Only places that have space can be written.
class ForwardImage : public Node {
 public:
  ForwardImage(Context& context, NodePtr layout, std::shared_ptr<PipeOutput> out);
  bool reads_zero_when_created() const override { return true; }

 protected:
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override;
  Task<void> do_flush() override { co_return; }
  Task<void> do_close() override { return layout_->close(); }

 private:
  NodePtr layout_;
  std::shared_ptr<PipeOutput> out_;
};

}  // namespace cairn
