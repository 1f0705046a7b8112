#include <algorithm>

#include "base/buffer.h"
#include "block/driver.h"
#include "block/node.h"

// What a node does where its driver adds nothing.
namespace cairn {
namespace {
constexpr uint64_t kPrefetchBytes = 1 << 20;
}  // namespace

Task<std::optional<uint64_t>> Node::allocated_bytes() {
  std::optional<uint64_t> total;
  for (const Child& child : children_) {
    if (child.role == ChildRole::kBacking) continue;
    const std::optional<uint64_t> part = co_await child.node->allocated_bytes();
    if (!part) co_return std::nullopt;
    total = total.value_or(0) + *part;
  }
  co_return total;
}

Task<CheckResult> Node::check(CheckRequest) {
  throw Error(ErrorKind::kUnsupported, "This image format does not support checks");
  co_return CheckResult{};
}

Task<void> Node::change_backing(std::string, std::string) {
  throw Error::system(ENOTSUP);
  co_return;
}
Task<void> Node::adopt_encryption(Node&) {
  throw Error::system(ENOTSUP);
  co_return;
}
Task<bool> Node::make_empty() { co_return false; }
Task<uint64_t> Node::unmap(uint64_t, uint64_t) { co_return 0; }
Task<void> Node::create_snapshot(std::string) {
  throw Error::system(ENOTSUP);
  co_return;
}
Task<void> Node::apply_snapshot(std::string) {
  throw Error(ErrorKind::kUnsupported, "Block driver does not support snapshots");
  co_return;
}
Task<void> Node::delete_snapshot(std::string) {
  throw Error(ErrorKind::kNotFound, "snapshot not found");
  co_return;
}
Task<void> Node::show_snapshot(std::string, std::string) {
  throw Error(ErrorKind::kUnsupported,
              "Block format '" + std::string(driver_.name()) +
                  "' used by device '' does not support temporarily loading internal snapshots");
  co_return;
}

Task<void> Node::show_state(std::optional<size_t> which) {
  if (which) throw Error::system(ENOTSUP);
  co_return;
}
Task<void> Node::record_snapshot(SnapshotRecord) {
  throw Error::system(ENOTSUP);
  co_return;
}

Task<void> Node::amend(AmendRequest) {
  throw Error(ErrorKind::kUnsupported, "Format driver '" + std::string(driver_.name()) +
                                           "' does not support option amendment");
  co_return;
}

Task<void> Node::read_vm_state(uint64_t, MutableByteSpan) {
  throw Error::system(ENOTSUP);
  co_return;
}
Task<void> Node::write_vm_state(uint64_t, ByteSpan) {
  throw Error::system(ENOTSUP);
  co_return;
}

Task<uint64_t> Node::vm_state_hole(uint64_t, uint64_t) {
  throw Error::system(ENOTSUP);
  co_return 0;
}

Task<void> Node::set_permissions(Permissions) { co_return; }

void Node::set_compression_level(uint64_t) {
  throw Error(ErrorKind::kUnsupported,
              "Format '" + std::string(driver_.name()) + "' has no compression_level");
}

std::vector<std::byte> Node::encode_cluster(ByteSpan) const { throw Error::system(ENOTSUP); }

Task<void> Node::write_encoded(uint64_t, ByteSpan, ByteSpan) {
  throw Error::system(ENOTSUP);
  co_return;
}

Task<void> Node::finish_encoded() { co_return; }

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
  if (length != 0) co_await do_prefetch(offset, length);
}

Task<void> Node::do_prefetch(uint64_t offset, uint64_t length) {
  AlignedBuffer scratch(std::min(length, kPrefetchBytes));
  for (uint64_t done = 0; done < length;) {
    const uint64_t part = std::min<uint64_t>(scratch.size(), length - done);
    co_await read(offset + done, scratch.span().first(part));
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

Task<bool> Node::do_copy_range_from(Node&, uint64_t, uint64_t, uint64_t) { co_return false; }

}  // namespace cairn
