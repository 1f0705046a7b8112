#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "async/task.h"
#include "base/bytes.h"
#include "net/socket.h"
#include "net/tls.h"
#include "platform/types.h"

namespace cairn {

// A connection: a socket with a read buffer, in clear or inside of TLS. It belongs to one worker;
// one coroutine may read while another one writes. Only abort() may be called from elsewhere.
// Reads and writes throw kIo when the connection breaks, is aborted, or the deadline passes.
class Stream {
 public:
  explicit Stream(Socket socket);
  ~Stream();
  Stream(const Stream&) = delete;

  // Waits for at least one byte; 0 at the end of the stream.
  Task<size_t> read_some(MutableByteSpan out);
  // Fills OUT. False when the stream ended before the first byte; throws kIo when it ended later.
  Task<bool> read_exact(MutableByteSpan out);
  // Reads COUNT bytes and forgets them. Throws kIo when the stream ends before.
  Task<void> skip(uint64_t count);
  Task<void> write_all(ByteSpan bytes);
  // Writes all of BUFFERS in order; changes the array while it goes.
  Task<void> write_all(std::span<iovec> buffers);

  // Bytes that were received and not yet handed out. With TLS: of decrypted text.
  size_t buffered() const { return end_ - begin_; }
  // Operations that wait beyond this moment fail.
  void set_deadline(Deadline deadline) { deadline_ = deadline; }

  // Runs the handshake of SESSION; from then on everything goes through it. Throws kDenied when
  // bytes in clear are waiting after the point where TLS begins, and what the handshake said.
  Task<void> start_tls(std::unique_ptr<TlsSession> session);
  TlsSession* tls() { return tls_.get(); }

  // Breaks the connection off: readers and writers get an error. From any thread.
  void abort();
  // Wakes the reader, which then finds the end of the stream. From any thread.
  void stop_reading();
  // Says goodbye inside of TLS and closes the sending half; errors do not matter any more.
  Task<void> finish();

  // Bytes that went either way so far. From any thread.
  uint64_t moved() const { return moved_.load(std::memory_order_relaxed); }

  // Whether the peer has closed its side, what it sent before that being read or not. From any
  // thread.
  bool peer_has_left() const;

  const Socket& socket() const { return socket_; }

 private:
  Task<size_t> receive(MutableByteSpan out);
  Task<size_t> receive_into_both(MutableByteSpan out);
  Task<void> write_tls(std::span<iovec> buffers);
  Task<void> wait(short events);
  void make_buffer();
  size_t count(ssize_t bytes) {
    moved_.fetch_add(static_cast<uint64_t>(bytes), std::memory_order_relaxed);
    return static_cast<size_t>(bytes);
  }

  Socket socket_;
  std::unique_ptr<TlsSession> tls_;
  Deadline deadline_ = kNoDeadline;
  std::unique_ptr<std::byte[]> buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  std::atomic<uint64_t> moved_{0};
};

}  // namespace cairn
