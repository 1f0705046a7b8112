#pragma once

#include <memory>
#include <string>

#include "block/byte_sink.h"
#include "block/node.h"

namespace cairn {

// A file that goes to a sink from begin to end, and cannot be read or changed where it was sent.
// Closing it sends nothing: finish() does.
//
// What HELD has, a file with the start of an image, may still be read and changed until something
// is appended after it: then it is sent first. It stays the caller's, who closes it last.
class PipeOutput : public Node {
 public:
  // LENGTH bytes are sent unless more are written. NAME is what messages call it.
  PipeOutput(Context& context, std::shared_ptr<ByteSink> sink, std::string name, uint64_t length,
             NodePtr held = nullptr);
  // What the sink has already: nothing before it may be written. Before anything is.
  void begin_at(uint64_t sent) { sent_ = sent; }

  // Sends all up to OFFSET: what is held, then zeroes. Nothing where that was sent.
  Task<void> send_until(uint64_t offset);
  // The same, and then BYTES, which belong there. Throws kIo when the place was sent already.
  Task<void> send_at(uint64_t offset, ByteSpan bytes);
  // Sends all that was not sent yet. The sink is the caller's to finish.
  Task<void> finish();

 protected:
  Task<void> do_read(uint64_t offset, MutableByteSpan out) override;
  Task<void> do_write(uint64_t offset, ByteSpan in, WriteFlags flags) override;
  Task<void> do_write_zeroes(uint64_t offset, uint64_t length, WriteFlags flags) override;
  Task<void> do_flush() override { co_return; }
  Task<void> do_resize(ResizeRequest request) override;

 private:
  bool keeps(uint64_t offset, uint64_t length) const;
  Task<void> send(ByteSpan bytes);

  std::shared_ptr<ByteSink> sink_;
  NodePtr held_;
  uint64_t sent_ = 0;
};

}  // namespace cairn
