#include "net/stream.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "async/runtime.h"
#include "base/error.h"
#include "platform/socket.h"

namespace cairn {
namespace {

constexpr size_t kBufferBytes = 64 << 10;
// A TLS record holds at most this much text.
constexpr size_t kRecordBytes = 16 << 10;

Error cannot_read(int error) { return Error::system(error, "Unable to read from socket"); }
Error cannot_write(int error) { return Error::system(error, "Unable to write to socket"); }
Error cut_off() {
  return Error(ErrorKind::kIo, "Unexpected end-of-file before all data were read");
}

}  // namespace

Stream::Stream(Socket socket) : socket_(std::move(socket)) {}
Stream::~Stream() = default;

void Stream::make_buffer() {
  if (!buffer_) buffer_ = std::make_unique_for_overwrite<std::byte[]>(kBufferBytes);
}

Task<void> Stream::wait(short events) {
  const short ready = co_await await_ready(socket_.fd(), events, deadline_);
  if (ready == 0) throw Error::system(ETIMEDOUT, "connection");
}

// What has arrived, at once if anything has.
Task<size_t> Stream::receive(MutableByteSpan out) {
  while (true) {
    if (tls_) {
      const ssize_t got = tls_->receive(out);
      if (got >= 0) co_return count(got);
      if (got != -EAGAIN) throw cannot_read(static_cast<int>(-got));
      co_await wait(tls_->wants_to_write() ? POLLOUT : POLLIN);
      continue;
    }
    const ssize_t got = platform::receive(socket_.fd(), out.data(), out.size());
    if (got >= 0) co_return count(got);
    if (errno == EINTR) continue;
    if (errno != EAGAIN) throw cannot_read(errno);
    co_await wait(POLLIN);
  }
}

// Fills OUT and then the empty buffer with one call; gives how many bytes went to OUT.
Task<size_t> Stream::receive_into_both(MutableByteSpan out) {
  if (tls_) {
    const size_t got = co_await receive(out);
    co_return got;
  }
  make_buffer();
  while (true) {
    const iovec parts[2] = {{out.data(), out.size()}, {buffer_.get(), kBufferBytes}};
    const ssize_t got = platform::receive(socket_.fd(), parts);
    if (got >= 0) {
      const size_t bytes = count(got);
      const size_t direct = std::min(bytes, out.size());
      begin_ = 0;
      end_ = bytes - direct;
      co_return direct;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) throw cannot_read(errno);
    co_await wait(POLLIN);
  }
}

Task<size_t> Stream::read_some(MutableByteSpan out) {
  if (begin_ == end_) {
    const size_t got = co_await receive_into_both(out);
    co_return got;
  }
  const size_t bytes = std::min(out.size(), end_ - begin_);
  std::memcpy(out.data(), buffer_.get() + begin_, bytes);
  begin_ += bytes;
  co_return bytes;
}

Task<bool> Stream::read_exact(MutableByteSpan out) {
  size_t done = 0;
  while (done < out.size()) {
    size_t got = 0;
    const MutableByteSpan rest = out.subspan(done);
    if (begin_ == end_ && rest.size() < kRecordBytes) {
      // Small things come through the buffer: what follows them is mostly there as well.
      make_buffer();
      const MutableByteSpan whole(buffer_.get(), kBufferBytes);
      const size_t filled = co_await receive(whole);
      begin_ = 0;
      end_ = filled;
      if (filled != 0) got = co_await read_some(rest);
    } else {
      got = co_await read_some(rest);
    }
    if (got == 0) {
      if (done == 0) co_return false;
      throw cut_off();
    }
    done += got;
  }
  co_return true;
}

Task<void> Stream::skip(uint64_t count) {
  while (count != 0) {
    if (begin_ == end_) {
      make_buffer();
      const MutableByteSpan whole(buffer_.get(), kBufferBytes);
      const size_t filled = co_await receive(whole);
      if (filled == 0) throw cut_off();
      begin_ = 0;
      end_ = filled;
    }
    const size_t bytes = std::min<uint64_t>(count, end_ - begin_);
    begin_ += bytes;
    count -= bytes;
  }
}

Task<void> Stream::write_all(ByteSpan bytes) {
  iovec one{const_cast<std::byte*>(bytes.data()), bytes.size()};
  const std::span<iovec> buffers(&one, 1);
  co_await write_all(buffers);
}

Task<void> Stream::write_all(std::span<iovec> buffers) {
  if (tls_) {
    co_await write_tls(buffers);
    co_return;
  }
  while (true) {
    while (!buffers.empty() && buffers.front().iov_len == 0) buffers = buffers.subspan(1);
    if (buffers.empty()) co_return;
    const ssize_t sent = platform::send(socket_.fd(), buffers);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) throw cannot_write(errno);
      co_await wait(POLLOUT);
      continue;
    }
    size_t left = count(sent);
    while (left != 0) {
      iovec& front = buffers.front();
      const size_t step = std::min(left, front.iov_len);
      front.iov_base = static_cast<char*>(front.iov_base) + step;
      front.iov_len -= step;
      left -= step;
      if (front.iov_len == 0) buffers = buffers.subspan(1);
    }
  }
}

// Small pieces are gathered into records.
Task<void> Stream::write_tls(std::span<iovec> buffers) {
  std::vector<std::byte> staging;
  while (!buffers.empty()) {
    ByteSpan record;
    iovec& front = buffers.front();
    if (front.iov_len >= kRecordBytes || (buffers.size() == 1 && front.iov_len != 0)) {
      const size_t bytes = std::min(front.iov_len, kRecordBytes);
      record = ByteSpan(static_cast<std::byte*>(front.iov_base), bytes);
      front.iov_base = static_cast<char*>(front.iov_base) + bytes;
      front.iov_len -= bytes;
      if (front.iov_len == 0) buffers = buffers.subspan(1);
    } else {
      staging.clear();
      while (!buffers.empty() && staging.size() < kRecordBytes) {
        iovec& piece = buffers.front();
        const size_t bytes = std::min(piece.iov_len, kRecordBytes - staging.size());
        const auto* from = static_cast<const std::byte*>(piece.iov_base);
        staging.insert(staging.end(), from, from + bytes);
        piece.iov_base = static_cast<char*>(piece.iov_base) + bytes;
        piece.iov_len -= bytes;
        if (piece.iov_len == 0) buffers = buffers.subspan(1);
      }
      record = staging;
    }
    while (!record.empty()) {
      const ssize_t sent = tls_->send(record);
      if (sent == -EAGAIN) {
        co_await wait(tls_->wants_to_write() ? POLLOUT : POLLIN);
        continue;
      }
      if (sent < 0) throw cannot_write(static_cast<int>(-sent));
      record = record.subspan(count(sent));
    }
  }
}

Task<void> Stream::start_tls(std::unique_ptr<TlsSession> session) {
  if (buffered() != 0)
    throw Error(ErrorKind::kDenied, "unencrypted bytes after the point where TLS begins");
  session->attach(socket_.fd());
  while (!session->handshake()) co_await wait(session->wants_to_write() ? POLLOUT : POLLIN);
  session->verify_peer();
  tls_ = std::move(session);
}

bool Stream::peer_has_left() const { return platform::peer_has_left(socket_.fd()); }

void Stream::abort() { platform::shut_down(socket_.fd(), platform::End::kBoth); }
void Stream::stop_reading() { platform::shut_down(socket_.fd(), platform::End::kRead); }

Task<void> Stream::finish() {
  try {
    if (tls_) {
      set_deadline(std::min(deadline_, std::chrono::steady_clock::now() + std::chrono::seconds(1)));
      while (!tls_->goodbye()) co_await wait(POLLOUT);
    }
  } catch (const Error&) {
    // The peer went first.
  }
  platform::shut_down(socket_.fd(), platform::End::kWrite);
}

}  // namespace cairn
