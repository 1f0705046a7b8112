#pragma once

#include <coroutine>
#include <cstdint>
#include <vector>

#include "async/runtime.h"
#include "base/buffer.h"
#include "export/fuse/library.h"

namespace cairn::fuse {

class FileSystem;

// The longest read or write that the kernel sends, bytes.
inline constexpr uint32_t kMaxTransfer = 1 << 20;

// One worker's end of the connection to the kernel: a descriptor of its own (requests that were
// read from it are answered on it), its buffers and the requests under way. Belongs to its worker.
class Channel {
 public:
  Channel(const Library& library, FileSystem& files, fuse_session* session, Worker& worker)
      : library_(library), files_(files), session_(session), worker_(worker) {}
  ~Channel();
  Channel(const Channel&) = delete;

  // The channel whose requests are being handed out on this thread.
  static Channel* current();

  // Opens a descriptor next to MAIN; where that is not allowed, MAIN is shared.
  void open(int main);
  int fd() const { return fd_; }
  Worker& worker() const { return worker_; }
  FileSystem& files() const { return files_; }

  // Takes requests until none waits, at most MOST. Gives how many there were.
  unsigned drain(unsigned most);
  // The kernel has closed the connection.
  bool ended() const { return ended_; }
  // Waits until there is room for one more request, or until a request may have arrived.
  Task<void> wait_for_room();
  Task<void> wait_for_request();
  // Waits until everything that was started has been answered.
  Task<void> finish();

  // Runs the work of a request next to the others. It must not throw.
  void start(Task<void> work);
  // The memory of the request that is being handed out; from now on the caller's.
  AlignedBuffer take_request();
  // Memory of kMaxTransfer bytes and more, and the way back.
  AlignedBuffer take_buffer();
  void give_back(AlignedBuffer buffer);

 private:
  Task<void> run(Task<void> work);
  struct FewerAwaiter;

  const Library& library_;
  FileSystem& files_;
  fuse_session* session_;
  Worker& worker_;
  int fd_ = -1;
  bool own_fd_ = false;
  bool ended_ = false;
  AlignedBuffer request_;
  std::vector<AlignedBuffer> spare_;
  unsigned under_way_ = 0;
  // What waits until fewer than so many are under way.
  std::coroutine_handle<> waiting_;
  unsigned waiting_for_ = 0;
};

}  // namespace cairn::fuse
