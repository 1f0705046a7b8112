#include <algorithm>

#include "base/arith.h"
#include "block/context.h"
#include "format/qcow2/node.h"

namespace cairn {

using namespace qcow2;

// Images whose guest data is in a file of its own, each byte at its guest offset. What is there
// is shown by COPIED, since the offset 0 is a place like any other; no counters are kept for it.
//
// Order: the data file is flushed before any L2 block is written. With data_file_raw the file alone
// is the disk: what reads as zeroes is zeroes there first.

// The file that the image or the options name; none is opened where only metadata is looked at.
Task<void> Qcow2Node::open_data_file(OpenContext& request) {
  const bool wanted = (header_.incompatible & kIncompatDataFile) != 0;
  const bool named = request.options.has("data-file") || request.options.has_tree("data-file");
  if (!wanted) {
    if (named && !metadata_only_) {
      // One that cannot be opened is the nearer reason.
      const NodePtr file = co_await request.open_data_file({});
      co_await file->close();
    }
    if (named)
      throw Error(ErrorKind::kInvalid,
                  "'data-file' can only be set for images with an external data file");
    if (!metadata_only_ && (header_.autoclear & kAutoclearRawData))
      throw Error(ErrorKind::kInvalid, "data-file-raw requires a data file");
    co_return;
  }
  if (metadata_only_) {
    request.options.take_tree("data-file");
    request.options.erase("data-file");
    co_return;
  }
  if (!named && extensions_.data_file.empty())
    throw Error(ErrorKind::kInvalid, "'data-file' is required for this image");
  NodePtr file = co_await request.open_data_file(extensions_.data_file);
  use_data_file(std::move(file));
}

void Qcow2Node::use_data_file(NodePtr file) {
  data_ = file.get();
  external_ = true;
  add_child("data-file", std::move(file), ChildRole::kDataFile);
}

bool Qcow2Node::has_host(uint64_t word) const {
  return (word & (external_ ? kOffsetMask | kCopied : kOffsetMask)) != 0;
}

// Room for a write: where the guest bytes belong. COUNT clusters from that of OFFSET on have no
// place yet.
Grant Qcow2Node::grant_external(uint64_t count, uint64_t offset, uint64_t length) const {
  const uint64_t start = align_down(offset, cluster());
  const uint64_t unit = cluster() / subclusters();
  Grant place;
  place.offset = offset;
  place.length = std::min(length, start + count * cluster() - offset);
  place.host = data_;
  place.host_offset = offset;
  place.in_place = false;
  place.copy_begin = align_down(offset, unit);
  place.copy_end = align_up(offset + place.length, unit);
  place.token[0] = start;
  place.token[1] = count;
  return place;
}

// What a change of mappings means for the file: a raw one holds zeroes before the tables say so.
Task<void> Qcow2Node::zero_external(uint64_t offset, uint64_t length, bool may_unmap) {
  if (!raw_data_file()) co_return;
  co_await data_->write_zeroes(offset, length, {.may_unmap = may_unmap});
}

Task<void> Qcow2Node::discard_external(uint64_t offset, uint64_t length) {
  if (raw_data_file())
    co_await data_->write_zeroes(offset, length, {.may_unmap = true});
  else if (pass_discard_request_)
    co_await data_->discard(offset, length);
}

// Runs before L2 blocks are written.
Task<void> Qcow2Node::before_tables() {
  if (lazy_) co_await change_marks(kIncompatDirty, 0);
  if (external_) co_await data_->flush();
}

// The length of the file is that of the disk. A raw file also has all its metadata made.
Task<void> Qcow2Node::resize_external(uint64_t length, Preallocation mode) {
  if (!external_) co_return;
  const bool blocks = mode == Preallocation::kFalloc || mode == Preallocation::kFull;
  try {
    co_await data_->resize(
        {.length = length, .preallocation = blocks ? mode : Preallocation::kOff});
  } catch (Error& error) {
    throw error.context("Failed to resize underlying file");
  }
}

}  // namespace cairn
