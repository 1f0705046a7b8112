#include "block/graph/root.h"

#include "async/runtime.h"
#include "block/context.h"
#include "block/driver.h"

namespace cairn {
namespace {

// Of no registry: roots are made, not opened.
class RootDriver : public Driver {
 public:
  RootDriver() : Driver({.name = "root", .kind = DriverKind::kFilter, .verbatim = true}) {}
  Task<NodePtr> open(OpenContext&) const override {
    throw Error::system(ENOTSUP);
    co_return nullptr;
  }
};

const Driver& root_driver() {
  static const RootDriver driver;
  return driver;
}

}  // namespace

// Whatever comes is passed on as it is: the node below splits, aligns and emulates.
Root::Root(NodePtr node, NodeUse use)
    : Node(node->context(), root_driver()), below_(std::move(node)), use_(std::move(use)) {
  set_unbounded(true);
  set_splits_zeroes();
  closed_ = true;  // there is nothing to close
  discard_unmap_ = true;
  set_use(use_.takes, use_.shares);
  add_child("file", below_, ChildRole::kFiltered);
  set_length(below_->length());
  set_filename(below_->filename());
  refresh();
}

// What requests look at before they pass the gate is written only where it changes.
void Root::refresh() {
  Limits& mine = mutable_limits();
  const Limits& its = below_->limits();
  if (mine.cluster_bytes != its.cluster_bytes) mine.cluster_bytes = its.cluster_bytes;
  if (mine.remote != its.remote) mine.remote = its.remote;
  if (!mine.native_fua) mine.native_fua = true;
  set_filtered(below_.get());
  debug_port_ = below_->debug_port();
  const bool resized = length() != below_->length();
  set_length(below_->length());
  if (resized && use_.resized) use_.resized();
}

void Root::move_to(NodePtr node) {
  replace_child("file", node, ChildRole::kFiltered);
  below_ = std::move(node);
  refresh();
}

void Root::set_use(uint8_t takes, uint8_t shares) {
  use_.takes = takes;
  use_.shares = shares;
  set_read_only((takes & (Permissions::kWrite | Permissions::kWriteUnchanged)) == 0);
}

Task<void> Root::pause() {
  gate_.close();
  co_await gate_.quiet();
}

Task<void> Root::do_read(uint64_t offset, MutableByteSpan out) {
  const auto passage = co_await gate_.enter();
  try {
    co_await below_->read(offset, out);
  } catch (const Error& error) {
    tell_failure(RequestKind::kRead, offset, error);
    throw;
  }
}

Task<void> Root::do_write(uint64_t offset, ByteSpan in, WriteFlags flags) {
  const auto passage = co_await gate_.enter();
  try {
    co_await below_->write(offset, in, flags);
  } catch (const Error& error) {
    tell_failure(RequestKind::kWrite, offset, error);
    throw;
  }
  raise_length(below_->length());
}

Task<void> Root::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  const auto passage = co_await gate_.enter();
  try {
    co_await below_->write_zeroes(offset, length, flags);
  } catch (const Error& error) {
    tell_failure(RequestKind::kZero, offset, error);
    throw;
  }
  raise_length(below_->length());
}

Task<void> Root::do_discard(uint64_t offset, uint64_t length) {
  const auto passage = co_await gate_.enter();
  try {
    co_await below_->discard(offset, length);
  } catch (const Error& error) {
    tell_failure(RequestKind::kDiscard, offset, error);
    throw;
  }
}

Task<void> Root::do_flush() {
  const auto passage = co_await gate_.enter();
  try {
    co_await below_->flush();
  } catch (const Error& error) {
    tell_failure(RequestKind::kFlush, 0, error);
    throw;
  }
}

Task<Extent> Root::extent_at(uint64_t offset, uint64_t max) {
  const auto passage = co_await gate_.enter();
  Extent extent = co_await below_->extent_at(offset, max);
  co_return extent;
}

Task<Extent> Root::do_extent(uint64_t offset, uint64_t max) {
  const auto passage = co_await gate_.enter();
  Extent extent = co_await below_->layer_extent_at(offset, max);
  co_return extent;
}

Task<void> Root::do_resize(ResizeRequest request) {
  const auto passage = co_await gate_.enter();
  co_await below_->resize(request);
  set_length(below_->length());
}

}  // namespace cairn
