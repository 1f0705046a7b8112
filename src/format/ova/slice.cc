#include "format/ova/slice.h"

#include <algorithm>
#include <cstring>

namespace cairn::ova {

SliceNode::SliceNode(Node& file, uint64_t offset, uint64_t bytes, std::string name)
    : Node(file.context(), file.driver()), file_(file), offset_(offset) {
  mutable_limits().remote = file.limits().remote;
  set_length(bytes);
  set_filename(std::move(name));
}

// What follows in the file is not ours to show: past the end there are zeroes, as of any file.
Task<void> SliceNode::do_read(uint64_t offset, MutableByteSpan out) {
  const size_t inside =
      offset < length() ? std::min<uint64_t>(out.size(), length() - offset) : size_t{0};
  if (inside != 0) co_await file_.read(offset_ + offset, out.first(inside));
  std::memset(out.data() + inside, 0, out.size() - inside);
}

Task<Extent> SliceNode::do_extent(uint64_t offset, uint64_t max) {
  Extent extent = co_await file_.layer_extent_at(offset_ + offset, max);
  extent.allocated = true;
  co_return extent;
}

}  // namespace cairn::ova
