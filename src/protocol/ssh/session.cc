#include "protocol/ssh/session.h"

#include <fmt/core.h>
#include <poll.h>

#include <algorithm>
#include <cstring>

namespace cairn::ssh {
namespace {

// How often it is checked for a cancellation while something is under way.
constexpr int kMomentMs = 150;
// Enough for 2 ms at several Gbit/s; a window's worth of memory.
constexpr size_t kMostFlying = 4 << 20;
constexpr size_t kMostPieces = 128;
constexpr size_t kMostQueuedOut = 1 << 20;

}  // namespace

Session::Session(const Target& target, bool writable, bool create, const CancelSource* cancel)
    : FileSession("cairn-ssh", cancel),
      ssh_(SshLibrary::get()),
      target_(target),
      writable_(writable),
      create_(create) {}

Session::~Session() { stop(); }

void Session::connect() {
  start_session();
  check_host_key();
  log_in();
  start_sftp();
  open_file();
}

void Session::finish(const Error& why, bool connected) {
  drop_all(why);
  if (channel_ != nullptr) ssh_.channel_free_(channel_);
  if (session_ == nullptr) return;
  if (connected) ssh_.disconnect_(session_);
  ssh_.free_(session_);
}

void Session::wait(short events, Clock::time_point deadline, const char* what) {
  resume_all();
  check_stop();
  const auto now = Clock::now();
  if (now >= deadline) {
    errno = ETIMEDOUT;
    throw Error::system(ETIMEDOUT, what);
  }
  pollfd fds[2] = {{wake_fd(), POLLIN, 0}, {ssh_.get_fd_(session_), events, 0}};
  ::poll(fds, fds[1].fd < 0 ? 1 : 2, kMomentMs);
  if (fds[0].revents != 0) take_wake();
  check_stop();
}

void Session::lost(const std::string& what) const {
  std::string text = what;
  if (session_ != nullptr) {
    const char* said = ssh_.get_error_(session_);
    if (said != nullptr && *said != 0) text += ": " + std::string(said);
  }
  throw Error(ErrorKind::kIo, text);
}

// --- the open file ---

void Session::serve() {
  heard_ = Clock::now();
  for (;;) {
    take_work();
    bool moved = true;
    while (moved) {
      // Answers first: they make room for requests.
      moved = read_in();
      std::vector<std::byte> frame;
      while (next_frame(&frame)) answer(frame);
      while (!queue_.empty() && flying_ < kMostFlying && pieces_.size() < kMostPieces &&
             out_.size() - out_done_ < kMostQueuedOut) {
        FileOperation& operation = *queue_.front();
        advance(operation);
        if (operation.all_asked) queue_.pop_front();
      }
      moved = write_out() || moved;
    }
    const bool idle = pieces_.empty();
    if (idle) heard_ = Clock::now();
    // What waits for the server's window waits for an answer, not for the socket.
    const bool more = out_done_ < out_.size() && ssh_.channel_window_size_(channel_) != 0;
    const bool blocked = more || (ssh_.get_poll_flags_(session_) & SSH_WRITE_PENDING) != 0;
    wait(static_cast<short>(POLLIN | (blocked ? POLLOUT : 0)), heard_ + target_.timeout,
         "the server does not answer");
  }
}

// Sends a request of OPERATION.
void Session::advance(FileOperation& operation) {
  using Kind = FileOperation::Kind;
  if (operation.has_data()) {
    const size_t most = operation.kind == Kind::kRead ? limits_.read : limits_.write;
    const size_t part = std::min(operation.length() - operation.asked, most);
    send_piece(operation, operation.asked, part);
    operation.asked += part;
    operation.all_asked = operation.asked == operation.length();
    return;
  }
  const uint32_t id = next_id_++;
  operation.all_asked = true;
  ++operation.pending;
  pieces_[id] = {&operation, 0, 0};
  if (operation.kind == Kind::kSync)
    send(
        FrameWriter(FrameType::kExtended, id).string("fsync@openssh.com").string(handle_).finish());
  else if (operation.kind == Kind::kRemove)
    send(FrameWriter(FrameType::kRemove, id).string(target_.path).finish());
  else
    send(FrameWriter(FrameType::kFsetstat, id)
             .string(handle_)
             .u32(1)
             .u64(operation.offset)
             .finish());
}

void Session::send_piece(FileOperation& operation, size_t at, size_t length) {
  const uint32_t id = next_id_++;
  ++operation.pending;
  pieces_[id] = {&operation, at, length};
  flying_ += length;
  const auto bytes = static_cast<uint32_t>(length);
  const uint64_t place = operation.offset + at;
  if (operation.kind == FileOperation::Kind::kRead) {
    send(FrameWriter(FrameType::kRead, id).string(handle_).u64(place).u32(bytes).finish());
    return;
  }
  send(FrameWriter(FrameType::kWrite, id).string(handle_).u64(place).string_after(bytes).finish());
  send(operation.in.subspan(at, length));
}

void Session::send(ByteSpan frame) { out_.insert(out_.end(), frame.begin(), frame.end()); }

// Writes what the server's window has room for. Whether something was written.
bool Session::write_out() {
  bool moved = false;
  while (out_done_ < out_.size()) {
    const size_t left = out_.size() - out_done_;
    const size_t part = std::min<size_t>(left, ssh_.channel_window_size_(channel_));
    if (part == 0) break;
    const int written =
        ssh_.channel_write_(channel_, out_.data() + out_done_, static_cast<uint32_t>(part));
    if (written == SSH_ERROR) lost("the connection was lost");
    if (written <= 0) break;
    out_done_ += static_cast<size_t>(written);
    moved = true;
  }
  // What was sent is dropped now and then, not after each piece.
  if (out_done_ == out_.size()) {
    out_.clear();
    out_done_ = 0;
  } else if (out_done_ > kMostQueuedOut) {
    out_.erase(out_.begin(), out_.begin() + static_cast<ptrdiff_t>(out_done_));
    out_done_ = 0;
  }
  return moved;
}

// Reads what has come. Whether something has.
bool Session::read_in() {
  constexpr uint32_t kPart = 256 << 10;
  part_.resize(kPart);
  if (in_done_ != 0) {
    in_.erase(in_.begin(), in_.begin() + static_cast<ptrdiff_t>(in_done_));
    in_done_ = 0;
  }
  const int got = ssh_.channel_read_nonblocking_(channel_, part_.data(), kPart, 0);
  if (got == SSH_ERROR) lost("the connection was lost");
  if (got <= 0) {
    if (ssh_.channel_is_eof_(channel_) != 0 || ssh_.channel_is_closed_(channel_) != 0)
      throw Error(ErrorKind::kIo, "the server closed the connection");
    return false;
  }
  in_.insert(in_.end(), part_.begin(), part_.begin() + got);
  heard_ = Clock::now();
  return true;
}

// Takes the next whole frame, without its length, out of what has come.
bool Session::next_frame(std::vector<std::byte>* frame) {
  const ByteSpan rest = ByteSpan(in_).subspan(in_done_);
  if (rest.size() < 4) return false;
  const uint32_t length = load_be<uint32_t>(rest, 0);
  if (length == 0 || length > kMostFrameBytes)
    throw Error(ErrorKind::kIo, fmt::format("the server sent a frame of {} bytes", length));
  if (rest.size() - 4 < length) return false;
  frame->assign(rest.begin() + 4, rest.begin() + 4 + length);
  in_done_ += 4 + length;
  return true;
}

void Session::answer(ByteSpan frame) {
  FrameReader reader(frame);
  const auto type = static_cast<FrameType>(reader.u8());
  const uint32_t id = reader.u32();
  const auto found = pieces_.find(id);
  if (found == pieces_.end())
    throw Error(ErrorKind::kIo, "the server answered a request that was not sent");
  const Piece piece = found->second;
  pieces_.erase(found);
  flying_ -= piece.length;
  --piece.operation->pending;
  answer_piece(piece, type, reader);
  FileOperation& operation = *piece.operation;
  if (operation.pending != 0) return;
  if (operation.all_asked) return finish_operation(operation);
  // After an error nothing more is asked.
  if (!operation.error) return;
  std::erase(queue_, &operation);
  finish_operation(operation);
}

void Session::answer_piece(const Piece& piece, FrameType type, FrameReader reader) {
  FileOperation& operation = *piece.operation;
  using Kind = FileOperation::Kind;
  if (type == FrameType::kStatus) {
    const uint32_t code = reader.u32();
    if (operation.kind == Kind::kRead && code == kEndOfFile) {
      // Only what is inside of the file is asked for.
      if (!operation.error)
        operation.error = std::make_exception_ptr(
            Error(ErrorKind::kIo,
                  fmt::format("the file became shorter on the server: it ends before byte {}",
                              operation.offset + piece.at + piece.length)));
      return;
    }
    const bool fine = code == kOk && operation.kind != Kind::kRead;
    if (fine || operation.error) return;
    Error failed = Error::system(errno_of_status(code));
    // OpenSSH has no other word for a full disk.
    if (code == kFailure && operation.kind != Kind::kRead && target_.explains)
      failed.hint("The server gives no reason; is its disk full?");
    operation.error = std::make_exception_ptr(failed);
    return;
  }
  if (type == FrameType::kData && operation.kind == Kind::kRead) {
    const ByteSpan data = reader.string();
    if (data.empty() || data.size() > piece.length)
      throw Error(ErrorKind::kIo,
                  fmt::format("the server sent {} bytes for {}", data.size(), piece.length));
    std::memcpy(operation.out.data() + piece.at, data.data(), data.size());
    if (data.size() < piece.length)
      send_piece(operation, piece.at + data.size(), piece.length - data.size());
    return;
  }
  throw Error(ErrorKind::kIo, "the server sent an answer of another kind");
}

// The session is over: what has no answer will not have one.
void Session::drop_all(const Error& why) {
  end_work(why);
  std::vector<FileOperation*> all(queue_.begin(), queue_.end());
  for (const auto& [id, piece] : pieces_)
    if (std::find(all.begin(), all.end(), piece.operation) == all.end())
      all.push_back(piece.operation);
  const bool lost = why.kind() != ErrorKind::kCancelled;
  for (FileOperation* each : all) {
    each->lost = lost;
    each->error = std::make_exception_ptr(why);
    finish_operation(*each);
  }
}

}  // namespace cairn::ssh
