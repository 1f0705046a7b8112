#include <liburing.h>

#include "async/engine.h"
#include "async/runtime.h"
#include "platform/linux/allocation_flags.h"

namespace cairn {
namespace {

class UringEngine : public IoEngine {
 public:
  explicit UringEngine(int wake_fd) {
    const int error = io_uring_queue_init(256, &ring_, 0);
    if (error != 0) return;
    usable_ = works() && io_uring_register_eventfd(&ring_, wake_fd) == 0;
    if (!usable_) io_uring_queue_exit(&ring_);
  }
  ~UringEngine() override {
    if (usable_) io_uring_queue_exit(&ring_);
  }
  bool usable() const { return usable_; }
  const char* name() const override { return "io_uring"; }

  void submit(Operation& operation) override {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    while (entry == nullptr) {
      io_uring_submit(&ring_);
      entry = io_uring_get_sqe(&ring_);
    }
    const auto count = static_cast<unsigned>(operation.buffers.size());
    switch (operation.kind) {
      case Operation::Kind::kRead:
        io_uring_prep_readv(entry, operation.fd, operation.buffers.data(), count, operation.offset);
        break;
      case Operation::Kind::kWrite:
        io_uring_prep_writev(entry, operation.fd, operation.buffers.data(), count,
                             operation.offset);
        break;
      case Operation::Kind::kDataSync:
        io_uring_prep_fsync(entry, operation.fd, IORING_FSYNC_DATASYNC);
        break;
      case Operation::Kind::kAllocate:
        io_uring_prep_fallocate(
            entry, operation.fd, platform::allocation_flags(operation.allocation),
            static_cast<off_t>(operation.offset), static_cast<off_t>(operation.length));
        break;
    }
    io_uring_sqe_set_data(entry, &operation);
    queued_ = true;
  }

  void poll() override {
    if (queued_) {
      queued_ = false;
      io_uring_submit(&ring_);
    }
    io_uring_cqe* done = nullptr;
    while (io_uring_peek_cqe(&ring_, &done) == 0) {
      auto* operation = static_cast<Operation*>(io_uring_cqe_get_data(done));
      operation->result = done->res;
      io_uring_cqe_seen(&ring_, done);
      operation->worker->post(operation->handle);
    }
  }

 private:
  // A ring may be made where requests are refused (seccomp, containers): one is tried.
  bool works() {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    io_uring_prep_nop(entry);
    io_uring_sqe_set_data(entry, nullptr);
    if (io_uring_submit_and_wait(&ring_, 1) != 1) return false;
    io_uring_cqe* done = nullptr;
    if (io_uring_peek_cqe(&ring_, &done) != 0) return false;
    const bool right = done->res == 0;
    io_uring_cqe_seen(&ring_, done);
    return right;
  }

  io_uring ring_{};
  bool usable_ = false;
  bool queued_ = false;
};

}  // namespace

std::unique_ptr<IoEngine> make_uring_engine(int wake_fd) {
  auto engine = std::make_unique<UringEngine>(wake_fd);
  if (!engine->usable()) return nullptr;
  return engine;
}

}  // namespace cairn
