#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "async/task.h"
#include "platform/file.h"

namespace cairn {

// Asynchronous system calls on the current worker. Each gives the call's result, or -errno; none
// throws. Buffers belong to the operation until it has returned, also when nobody wants the result
// any more.
//
// io_read tries the page cache first (RWF_NOWAIT) and only then queues; MEMORY_BACKED says that the
// file lives on tmpfs or the like, where plain calls are made at once.
struct IoFile {
  int fd = -1;
  bool memory_backed = false;  // tmpfs, ramfs, hugetlbfs: call directly
  bool direct = false;         // O_DIRECT: never try the page cache
};

Task<ssize_t> io_readv(IoFile file, std::span<const iovec> buffers, uint64_t offset);
Task<ssize_t> io_writev(IoFile file, std::span<const iovec> buffers, uint64_t offset);
Task<int> io_fdatasync(IoFile file);
Task<int> io_allocate(IoFile file, platform::Allocation what, uint64_t offset, uint64_t length);

// What a worker's engine offers; two implementations, chosen by the Runtime.
class IoEngine {
 public:
  virtual ~IoEngine() = default;
  virtual const char* name() const = 0;
  struct Operation;
  // Queues OPERATION; its coroutine is resumed on its worker with the result in it.
  virtual void submit(Operation& operation) = 0;
  // Hands queued operations to the kernel and collects what has ended, without waiting.
  virtual void poll() {}
};

}  // namespace cairn
