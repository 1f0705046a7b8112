#pragma once

#include <atomic>
#include <string>

#include "base/own_fd.h"
#include "block/byte_sink.h"

namespace cairn {

class Context;

// A descriptor to which a file is sent. Waits in short steps for who reads, so that the work can be
// cancelled.
class DescriptorSink : public ByteSink {
 public:
  // Takes FD over, also when it throws. NAME is what messages call it.
  DescriptorSink(Context& context, int fd, std::string name);
  ~DescriptorSink() override;

  Task<void> write(ByteSpan bytes) override;
  // Throws what a file reports only now.
  Task<void> finish() override;
  void abandon() override { abandoned_.store(true); }
  void discard(Error& why) override;
  void check() const override;

 private:
  // Blocks.
  void send(ByteSpan bytes);

  Context& context_;
  OwnFd fd_;
  const std::string name_;
  OwnFd unblocked_;         // the same pipe, which never blocks
  bool in_pieces_ = false;  // a write may block unless it is short
  bool sent_ = false;
  std::atomic<bool> abandoned_{false};
};

}  // namespace cairn
