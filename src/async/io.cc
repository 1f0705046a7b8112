#include "async/io.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include "async/engine.h"
#include "async/runtime.h"

namespace cairn {
namespace {

// A buffered write up to this size is a copy into the page cache; a trip through the engine, which
// hands buffered writes to a kernel thread, would cost more than it saves.
constexpr size_t kInlineWriteBytes = 256 << 10;

size_t total(std::span<const iovec> buffers) {
  size_t sum = 0;
  for (const iovec& buffer : buffers) sum += buffer.iov_len;
  return sum;
}

std::span<const iovec> first_of(std::span<const iovec> buffers) {
  return buffers.first(std::min(buffers.size(), platform::kMostBuffers));
}

struct Queued {
  IoEngine::Operation operation;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    operation.worker = Worker::current();
    operation.handle = handle;
    operation.worker->io().submit(operation);
  }
  ssize_t await_resume() const noexcept { return operation.result; }
};

class ThreadEngine : public IoEngine {
 public:
  const char* name() const override { return "threads"; }
  void submit(Operation& operation) override {
    operation.worker->runtime().pool().submit([&operation] {
      operation.result = perform(operation);
      operation.worker->post(operation.handle);
    });
  }
};

}  // namespace

std::unique_ptr<IoEngine> make_thread_engine() { return std::make_unique<ThreadEngine>(); }

ssize_t perform(const IoEngine::Operation& operation) {
  using Kind = IoEngine::Operation::Kind;
  while (true) {
    ssize_t result = 0;
    switch (operation.kind) {
      case Kind::kRead:
        result = platform::read_at(operation.fd, operation.buffers, operation.offset);
        break;
      case Kind::kWrite:
        result = platform::write_at(operation.fd, operation.buffers, operation.offset);
        break;
      case Kind::kDataSync:
        result = platform::sync_data(operation.fd);
        break;
      case Kind::kAllocate:
        result = platform::allocate(operation.fd, operation.allocation, operation.offset,
                                    operation.length);
        break;
    }
    if (result >= 0) return result;
    if (errno != EINTR) return -errno;
  }
}

Task<ssize_t> io_readv(IoFile file, std::span<const iovec> buffers, uint64_t offset) {
  IoEngine::Operation operation{.kind = IoEngine::Operation::Kind::kRead,
                                .fd = file.fd,
                                .buffers = first_of(buffers),
                                .offset = offset};
  if (file.memory_backed) co_return perform(operation);
  if (!file.direct) {
    const ssize_t got = platform::read_cached_at(file.fd, buffers, offset);
    // A short answer is one the cache had no more for, or the end of the file: the caller asks on.
    if (got > 0) co_return got;
  }
  const ssize_t result = co_await Queued{operation};
  co_return result;
}

Task<ssize_t> io_writev(IoFile file, std::span<const iovec> buffers, uint64_t offset) {
  IoEngine::Operation operation{.kind = IoEngine::Operation::Kind::kWrite,
                                .fd = file.fd,
                                .buffers = first_of(buffers),
                                .offset = offset};
  if (file.memory_backed || (!file.direct && total(buffers) <= kInlineWriteBytes))
    co_return perform(operation);
  const ssize_t result = co_await Queued{operation};
  co_return result;
}

Task<int> io_fdatasync(IoFile file) {
  IoEngine::Operation operation{.kind = IoEngine::Operation::Kind::kDataSync, .fd = file.fd};
  if (file.memory_backed) co_return static_cast<int>(perform(operation));
  const ssize_t result = co_await Queued{operation};
  co_return static_cast<int>(result);
}

Task<int> io_allocate(IoFile file, platform::Allocation what, uint64_t offset, uint64_t length) {
  IoEngine::Operation operation{.kind = IoEngine::Operation::Kind::kAllocate,
                                .fd = file.fd,
                                .offset = offset,
                                .length = length,
                                .allocation = what};
  if (file.memory_backed) co_return static_cast<int>(perform(operation));
  const ssize_t result = co_await Queued{operation};
  co_return static_cast<int>(result);
}

}  // namespace cairn
