#include "job/pipe_input.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "async/cancel.h"
#include "async/runtime.h"
#include "block/driver.h"
#include "platform/file.h"
#include "platform/poll.h"

namespace cairn {
namespace {

constexpr size_t kPackedBytes = 1 << 20;
// How long a wait lasts before it is asked whether anybody still wants it.
constexpr int kReceiveWait = 100;

}  // namespace

PipeReader::PipeReader(Context& context, int fd, std::string name)
    : context_(context), fd_(fd), name_(std::move(name)) {}

size_t PipeReader::receive(MutableByteSpan out) {
  while (true) {
    if (context_.cancel != nullptr) context_.cancel->check();
    pollfd ready{.fd = fd_, .events = POLLIN, .revents = 0};
    if (platform::poll({&ready, 1}, kReceiveWait) == 0) continue;
    const ssize_t got = platform::read(fd_, out.data(), out.size());
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) throw Error::system(errno, name_);
    received_ += static_cast<uint64_t>(got);
    return static_cast<size_t>(got);
  }
}

size_t PipeReader::unpack_some(MutableByteSpan out) {
  MutableByteSpan room = out;
  while (room.size() == out.size()) {
    if (context_.cancel != nullptr) context_.cancel->check();
    if (packed_.empty() && !ended_) {
      buffer_.resize(kPackedBytes);
      packed_ = ByteSpan(buffer_).first(receive(buffer_));
      ended_ = packed_.empty();
    }
    const size_t before = packed_.size();
    try {
      unpacker_->step(packed_, room, ended_);
    } catch (const Error& error) {
      throw Error(error.kind(),
                  fmt::format("{} cannot be unpacked: {}, at byte {}, after {} bytes of content",
                              name_, error.message(), received_ - packed_.size(), content_))
          .hint("What came is incomplete or damaged.");
    }
    if (room.size() == out.size() && packed_.size() == before && ended_) {
      if (!packed_.empty()) throw Error(ErrorKind::kCorrupt, name_ + " cannot be unpacked");
      break;
    }
  }
  content_ += out.size() - room.size();
  return out.size() - room.size();
}

Task<ByteSpan> PipeReader::peek(size_t bytes) {
  std::vector<std::byte> more(bytes - std::min(bytes, ahead_.size()));
  while (!more.empty()) {
    const size_t got = co_await run_blocking(
        [&] { return unpacker_ ? unpack_some(MutableByteSpan(more)) : receive(more); });
    if (got == 0) break;
    ahead_.insert(ahead_.end(), more.begin(), more.begin() + static_cast<std::ptrdiff_t>(got));
    more.resize(more.size() - got);
  }
  co_return ByteSpan(ahead_).first(std::min(bytes, ahead_.size()));
}

void PipeReader::unpack(Packing packing) {
  unpacker_ = make_unpacker(packing);
  buffer_ = std::exchange(ahead_, {});
  packed_ = buffer_;
}

Task<size_t> PipeReader::read(MutableByteSpan out) {
  size_t done = std::min(out.size(), ahead_.size());
  if (done != 0) std::memcpy(out.data(), ahead_.data(), done);
  ahead_.erase(ahead_.begin(), ahead_.begin() + static_cast<std::ptrdiff_t>(done));
  co_await run_blocking([&] {
    while (done < out.size()) {
      const size_t got = unpacker_ ? unpack_some(out.subspan(done)) : receive(out.subspan(done));
      if (got == 0) break;
      done += got;
    }
  });
  co_return done;
}

PipeInput::PipeInput(Context& context, NodePtr bytes, std::shared_ptr<Spool> spool,
                     std::string name)
    : Node(context, bytes->driver()), bytes_(std::move(bytes)), spool_(std::move(spool)) {
  set_filename(std::move(name));
  set_length(bytes_->length());
  mutable_limits() = bytes_->limits();
}

Task<Extent> PipeInput::do_extent(uint64_t offset, uint64_t max) {
  Extent extent = co_await bytes_->layer_extent_at(offset, max);
  extent.allocated = true;
  // Nobody else can read them there.
  extent.host = nullptr;
  co_return extent;
}

}  // namespace cairn
