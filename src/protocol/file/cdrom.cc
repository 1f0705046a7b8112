#include "protocol/file/cdrom.h"

#include <cerrno>

#include "async/runtime.h"
#include "block/context.h"
#include "platform/types.h"

namespace cairn {

Error no_medium(CdromDrive::Status status, std::string_view message) {
  Error error = message.empty() ? Error::system(ENOMEDIUM)
                                : Error(ErrorKind::kNoMedium, std::string(message));
  if (status == CdromDrive::Status::kTrayOpen) error.hint("The tray of the drive is open.");
  if (status == CdromDrive::Status::kNotReady)
    error.hint("The drive is not ready: it may be reading a medium that was just put in.");
  return error;
}

void CdromNode::inspect(bool direct) {
  FileNode::inspect(direct);
  // The kernel leaves an empty drive the size of an earlier medium.
  if (context().profile.need_medium && drive_->status() != CdromDrive::Status::kReady)
    set_length(0);
}

Task<void> CdromNode::check_medium() {
  co_await run_blocking([this] {
    const CdromDrive::Status status = drive_->status();
    if (status != CdromDrive::Status::kReady) throw no_medium(status);
    if (changed_ || drive_->medium_changed()) {
      changed_ = true;
      throw Error(ErrorKind::kIo, "the medium in the drive was changed")
          .hint("Open the drive again to use the new medium.");
    }
  });
}

Task<void> CdromNode::do_read(uint64_t offset, MutableByteSpan out) {
  std::exception_ptr error;
  try {
    co_await FileNode::do_read(offset, out);
  } catch (...) {
    error = std::current_exception();
  }
  // Afterwards: then what was read is known to be of the right medium.
  co_await check_medium();
  if (error) std::rethrow_exception(error);
}

Task<void> CdromNode::do_write(uint64_t offset, ByteSpan in, WriteFlags flags) {
  co_await check_medium();
  co_await FileNode::do_write(offset, in, flags);
}

Task<void> CdromNode::do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) {
  co_await check_medium();
  co_await FileNode::do_write_zeroes(offset, length, flags);
}

Task<void> CdromNode::do_discard(uint64_t offset, uint64_t length) {
  co_await check_medium();
  co_await FileNode::do_discard(offset, length);
}

Task<Extent> CdromNode::do_extent(uint64_t offset, uint64_t max) {
  co_await check_medium();
  const Extent extent = co_await FileNode::do_extent(offset, max);
  co_return extent;
}

Task<void> CdromNode::do_resize(ResizeRequest request) {
  co_await check_medium();
  co_await FileNode::do_resize(request);
}

}  // namespace cairn
