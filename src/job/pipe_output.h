#pragma once

#include <atomic>

#include "base/own_fd.h"
#include "block/node.h"

namespace cairn {

// A file that is sent to a descriptor from begin to end, and cannot be read or changed where it was
// sent. Closing it sends nothing: finish() does.
//
// What HELD has, a file with the start of an image, may still be read and changed until something
// is appended after it: then it is sent first. It stays the caller's, who closes it last.
class PipeOutput : public Node {
 public:
  // LENGTH bytes are sent unless more are written. NAME is what messages call it. Waits in short
  // steps for who reads, so that the work can be cancelled.
  PipeOutput(Context& context, int fd, std::string name, uint64_t length, NodePtr held = nullptr);

  // Sends all up to OFFSET: what is held, then zeroes. Nothing where that was sent.
  Task<void> send_until(uint64_t offset);
  // The same, and then BYTES, which belong there. Throws kIo when the place was sent already.
  Task<void> send_at(uint64_t offset, ByteSpan bytes);
  // Sends all that was not sent yet.
  Task<void> finish();
  // Nothing more is sent: the image is incomplete.
  void abandon() { abandoned_.store(true); }
  bool sent_any() const { return sent_ != 0; }
  // Throws when nobody reads any more. From any thread.
  void check_reader() const;

 protected:
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override;
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override;
  Task<void> do_flush() override { co_return; }
  Task<void> do_resize(ResizeRequest request) override;

 private:
  bool keeps(uint64_t offset, uint64_t length) const;
  // Blocks.
  void send(ByteSpan bytes);

  int fd_;
  OwnFd unblocked_;         // the same pipe, which never blocks
  bool in_pieces_ = false;  // a write may block unless it is short
  NodePtr held_;
  uint64_t sent_ = 0;
  std::atomic<bool> abandoned_{false};
};

}  // namespace cairn
