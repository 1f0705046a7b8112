#include <algorithm>

#include "base/buffer.h"
#include "block/capabilities/prefetcher.h"
#include "block/driver.h"
#include "block/node.h"

// What a node does where its driver adds nothing.
namespace cairn {
namespace {
constexpr uint64_t kPrefetchBytes = 1 << 20;
}  // namespace

Task<void> Node::do_write(uint64_t, ByteSpan, WriteFlags) {
  throw Error::system(ENOTSUP);
  co_return;
}

Task<void> Node::do_write_zeroes(uint64_t, uint64_t, WriteFlags) {
  throw Error::system(ENOTSUP);
  co_return;
}

Task<void> Node::do_discard(uint64_t, uint64_t) { co_return; }

Task<void> Node::prefetch(uint64_t offset, uint64_t length) {
  check_range(offset, length);
  if (length == 0) co_return;
  if (auto* prefetcher = as<Prefetcher>())
    co_await prefetcher->prefetch_range(offset, length);
  else
    co_await prefetch_by_reading(*this, offset, length);
}

Task<void> prefetch_by_reading(Node& node, uint64_t offset, uint64_t length) {
  AlignedBuffer scratch(std::min(length, kPrefetchBytes));
  for (uint64_t done = 0; done < length;) {
    const uint64_t part = std::min<uint64_t>(scratch.size(), length - done);
    co_await node.read(offset + done, scratch.span().first(part));
    done += part;
  }
}

Task<void> Node::do_flush() {
  for (const Child& child : children_)
    if (!child.node->read_only()) co_await child.node->flush();
}

Task<Extent> Node::do_extent(uint64_t offset, uint64_t max) {
  Extent extent;
  extent.length = max;
  extent.data = true;
  extent.allocated = true;
  if (driver_.kind() == DriverKind::kProtocol) {
    extent.host = this;
    extent.host_offset = offset;
  }
  co_return extent;
}

Task<void> Node::do_resize(ResizeRequest) {
  throw Error(ErrorKind::kUnsupported, "Image format driver does not support resize");
  co_return;
}

Task<void> Node::do_close() { co_return; }

// The layer below is asked for at each request.
bool Node::take_child(std::string_view name, Node&) { return name == "backing"; }

}  // namespace cairn
