#include <algorithm>

#include "base/arith.h"
#include "block/context.h"
#include "format/vpc/node.h"

namespace cairn {

using namespace vpc;

Task<void> VpcNode::do_resize(ResizeRequest request) {
  if (request.length > kMaxSectors * kSector)
    throw Error(ErrorKind::kTooLarge, "Disk size is too large, max size is 2040 GiB");
  if (request.length == 0) throw Error(ErrorKind::kInvalid, "VHD: a disk cannot be empty");
  if (request.preallocation != Preallocation::kOff && !fixed())
    throw Error(ErrorKind::kUnsupported, "VHD: dynamic images have no preallocation");
  RangeLock::Guard all;
  co_await ranges().acquire(all, 0, UINT64_MAX / 2, true);
  co_await flush_mapped();
  const uint64_t before = length();
  // From now on the size counts, no matter what made the image.
  footer_.current_size = request.length;
  footer_.geometry = kLargest;
  footer_.creator = "qem2";
  if (fixed()) {
    // Old and new footer are both there for a moment: the file is cut last.
    ResizeRequest larger{.length = std::max(end_, request.length) + kFooterBytes,
                         .preallocation = request.preallocation};
    co_await file_->resize(larger);
    if (request.length > end_) {
      const std::vector<std::byte> zeroes(std::min(kFooterBytes, request.length - end_));
      co_await write_footer(request.length);
      co_await file_->flush();
      co_await file_->write(end_, zeroes);
    } else {
      co_await write_footer(request.length);
      co_await file_->flush();
      co_await file_->resize({.length = request.length + kFooterBytes});
    }
    end_ = request.length;
  } else {
    const auto entries = static_cast<uint32_t>(div_ceil(request.length, header_.block_bytes));
    if (request.length < before) {
      // What is cut off must not come back when the disk grows again.
      const uint64_t kept = align_up(request.length, header_.block_bytes);
      if (request.length < std::min(kept, before)) {
        const Mapping last = co_await map(request.length, std::min(kept, before) - request.length);
        if (last.kind == Mapping::Kind::kChild)
          co_await file_->write_zeroes(last.host_offset, last.length);
      }
      const uint64_t old = div_ceil(before, header_.block_bytes);
      const std::vector<std::byte> none((old - entries) * 4, std::byte{0xff});
      if (!none.empty()) co_await file_->write(header_.table_offset + entries * uint64_t{4}, none);
      make_table();
    } else if (entries > header_.entries) {
      co_await move_table(entries);
    }
    co_await file_->flush();
    co_await write_footer(0);
    co_await write_footer(end_);
  }
  co_await file_->flush();
  set_length(request.length);
}

// A larger table at the end of the file. The header, whose changed fields share a sector, makes it
// the true one.
Task<void> VpcNode::move_table(uint32_t entries) {
  std::vector<std::byte> table(align_up(uint64_t{entries} * 4, kSector), std::byte{0xff});
  co_await file_->read(header_.table_offset,
                       MutableByteSpan(table).first(uint64_t{header_.entries} * 4));
  const uint64_t place = end_;
  co_await write_footer(place + table.size());
  co_await file_->flush();
  co_await file_->write(place, table);
  co_await file_->flush();
  header_.table_offset = place;
  header_.entries = entries;
  std::vector<std::byte> bytes(kHeaderBytes);
  header_.encode(bytes);
  co_await file_->write(footer_.header_offset, bytes);
  end_ = place + table.size();
  virgin_ = std::max(virgin_, end_);
  make_table();
}

}  // namespace cairn
