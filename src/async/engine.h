#pragma once

#include <coroutine>

#include "async/io.h"

namespace cairn {

class Worker;

// One queued system call; lives in the frame of who awaits it.
struct IoEngine::Operation {
  enum class Kind { kRead, kWrite, kDataSync, kAllocate };
  Kind kind = Kind::kRead;
  int fd = -1;
  std::span<const iovec> buffers = {};
  uint64_t offset = 0;
  uint64_t length = 0;
  platform::Allocation allocation = platform::Allocation::kReserve;
  Worker* worker = nullptr;
  std::coroutine_handle<> handle = nullptr;
  ssize_t result = 0;
};

// The call itself, made on the calling thread; the result or -errno.
ssize_t perform(const IoEngine::Operation& operation);

// Both engines signal completions through WAKE_FD or by posting; null when the kernel refuses, or
// knows no io_uring.
std::unique_ptr<IoEngine> make_uring_engine(int wake_fd);
std::unique_ptr<IoEngine> make_thread_engine();

}  // namespace cairn
