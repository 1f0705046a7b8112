#include "protocol/nfs/session.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace cairn::nfs {
namespace {

// How often deadlines and cancellation are checked.
constexpr int kMomentMs = 100;
// The library copies what it sends and receives: this much is a session's memory.
constexpr size_t kMostFlying = 8 << 20;
constexpr size_t kMostPieces = 128;
// How long a server that asks for patience gets.
constexpr auto kPatience = std::chrono::milliseconds(300);
// A server of version 4 forgets a client that does not use its files; leases last 10 seconds or
// more. Others close connections on which nothing happens for minutes.
constexpr auto kLeaseUse = std::chrono::seconds(3);
constexpr auto kConnectionUse = std::chrono::seconds(60);

bool has_any(const std::string& text, std::initializer_list<const char*> words) {
  return std::any_of(words.begin(), words.end(),
                     [&](const char* word) { return text.find(word) != std::string::npos; });
}

// The server wants the same request later.
bool is_delay(const std::string& text) {
  return has_any(text, {"NFS3ERR_JUKEBOX", "NFS4ERR_DELAY", "NFS4ERR_GRACE"});
}

// The server has forgotten who we are: what is open must be opened again.
bool is_forgotten(const std::string& text) {
  return has_any(text, {"NFS4ERR_EXPIRED", "NFS4ERR_STALE_CLIENTID", "NFS4ERR_STALE_STATEID",
                        "NFS4ERR_BAD_STATEID", "NFS4ERR_OLD_STATEID", "NFS4ERR_ADMIN_REVOKED"});
}

}  // namespace

Session::Session(const Target& target, bool writable, bool create, const CancelSource* cancel)
    : FileSession("cairn-nfs", cancel),
      nfs_(NfsLibrary::get()),
      target_(target),
      writable_(writable),
      create_(create) {}

Session::~Session() { stop(); }

void Session::finish(const Error& why, bool connected) {
  // The library frees a file where it is closed, and nowhere else; what its upper interface has
  // under way still needs it.
  const bool needed = std::any_of(pieces_.begin(), pieces_.end(), [this](const Piece& piece) {
    const FileOperation* operation = piece.operation;
    return target_.version != 3 || (operation != nullptr && !operation->has_data() &&
                                    operation->kind != FileOperation::Kind::kSync);
  });
  const bool reached = !connected || why.kind() == ErrorKind::kCancelled;
  if (context_ != nullptr && file_ != nullptr && !needed) close_file(reached && pieces_.empty());
  drop_all(why);
}

void Session::serve() {
  last_use_ = Clock::now();
  for (;;) {
    take_work();
    send_later_ones();
    while (!queue_.empty() && flying_ < kMostFlying && pieces_.size() < kMostPieces) {
      FileOperation& operation = *queue_.front();
      advance(operation);
      if (operation.all_asked) queue_.pop_front();
    }
    keep_alive();
    check_deadlines();
    turn(kMomentMs);
    settle_failures();
  }
}

// Makes the next request of OPERATION.
void Session::advance(FileOperation& operation) {
  const size_t left = operation.length() - operation.asked;
  const size_t most = operation.kind == FileOperation::Kind::kRead ? most_read_ : most_write_;
  const size_t part = std::min(left, most);
  const size_t at = operation.asked;
  operation.asked += part;
  operation.all_asked = operation.asked == operation.length();
  ++operation.pending;
  start(&operation, at, part);
}

void Session::start(FileOperation* operation, size_t at, size_t length) {
  pieces_.push_back({.session = this,
                     .operation = operation,
                     .at = at,
                     .length = length,
                     .deadline = Clock::now() + target_.timeout});
  pieces_.back().self = std::prev(pieces_.end());
  flying_ += length;
  send(pieces_.back());
}

void Session::send(Piece& piece) {
  const FileOperation* operation = piece.operation;
  if (operation == nullptr || operation->has_data()) last_use_ = Clock::now();
  int result = 0;
  if (operation != nullptr && operation->kind == FileOperation::Kind::kResize)
    result = nfs_.nfs_ftruncate_async(context_, file_, operation->offset, &on_answer, &piece);
  else if (operation != nullptr && operation->kind == FileOperation::Kind::kAttributes)
    result = nfs_.nfs_fstat64_async(context_, file_, &on_answer, &piece);
  else if (operation != nullptr && operation->kind == FileOperation::Kind::kRemove)
    result = nfs_.nfs_unlink_async(context_, target_.place.file.c_str(), &on_answer, &piece);
  else
    result = target_.version == 3 ? send_version_3(piece) : send_version_4(piece);
  if (result != 0) failures_.push_back({&piece, EIO, error_text()});
}

void Session::send_later_ones() {
  const auto now = Clock::now();
  for (auto each = later_.begin(); each != later_.end();) {
    const auto next = std::next(each);
    if (each->start <= now) {
      pieces_.splice(pieces_.end(), later_, each);
      send(*each);
    }
    each = next;
  }
}

void Session::keep_alive() {
  const auto most = target_.version == 4 ? kLeaseUse : kConnectionUse;
  if (Clock::now() - last_use_ >= most) start(nullptr, 0, 0);
}

void Session::check_deadlines() const {
  const auto now = Clock::now();
  for (const auto* list : {&pieces_, &later_})
    for (const Piece& piece : *list)
      if (piece.deadline <= now)
        throw Error::system(ETIMEDOUT, "NFS: the server " + target_.host + " does not answer");
}

void Session::on_answer(int result, nfs_context*, void* data, void* piece) {
  auto& each = *static_cast<Piece*>(piece);
  each.session->answered(each, result, data);
}

void Session::answered(Piece& piece, int result, const void* data) {
  if (result < 0) {
    // Whether the connection is lost as well is known at the end of the turn.
    failures_.push_back({&piece, -result, error_text()});
    return;
  }
  FileOperation* operation = piece.operation;
  if (operation != nullptr && operation->has_data()) {
    answered_data(piece, static_cast<size_t>(result), data);
    return;
  }
  if (operation != nullptr && operation->kind == FileOperation::Kind::kAttributes &&
      data != nullptr)
    operation->attributes = attributes_of(*static_cast<const nfs_stat_64*>(data));
  end_piece(piece, nullptr);
}

// COUNT bytes of the piece are done; the rest is asked for again.
void Session::answered_data(Piece& piece, size_t count, const void* data) {
  FileOperation& operation = *piece.operation;
  const bool reads = operation.kind == FileOperation::Kind::kRead;
  const auto fail = [&](const std::string& text) {
    end_piece(piece, std::make_exception_ptr(Error(ErrorKind::kIo, "NFS: " + text)));
  };
  if (count > piece.length) return fail("the server answered with more than was asked for");
  if (count == 0 && reads)
    return fail(
        fmt::format("the file ends at byte {}, before its size", operation.offset + piece.at));
  if (count == 0) return fail("the server wrote nothing");
  if (reads) std::memcpy(operation.out.data() + piece.at, data, count);
  if (count == piece.length) return end_piece(piece, nullptr);
  piece.at += count;
  piece.length -= count;
  flying_ -= count;
  piece.start = {};
  later_.splice(later_.end(), pieces_, piece.self);
}

void Session::settle_failures() {
  for (const Failure& failure : std::exchange(failures_, {})) {
    Piece& piece = *failure.piece;
    if (is_forgotten(failure.text))
      throw Error(ErrorKind::kIo, "NFS: the server has closed the file: " + failure.text);
    if (is_delay(failure.text)) {
      piece.start = Clock::now() + kPatience;
      later_.splice(later_.end(), pieces_, piece.self);
      continue;
    }
    Error error = Error::system(failure.error);
    if (!failure.text.empty()) error.hint("NFS: " + failure.text);
    end_piece(piece, std::make_exception_ptr(error));
  }
}

void Session::end_piece(Piece& piece, std::exception_ptr error, bool lost) {
  FileOperation* operation = piece.operation;
  flying_ -= piece.length;
  pieces_.erase(piece.self);
  if (operation == nullptr) return;
  if (error && !operation->error) operation->error = error;
  if (lost) operation->lost = true;
  // After a failure nothing more is asked for.
  if (error && !operation->all_asked) {
    operation->all_asked = true;
    std::erase(queue_, operation);
  }
  if (--operation->pending != 0 || !operation->all_asked) return;
  finish_operation(*operation);
}

// The session is over: what the library has goes, then operations that wait fail.
void Session::drop_all(const Error& why) {
  end_work(why);
  // It calls back for each request.
  if (context_ != nullptr) nfs_.nfs_destroy_context(std::exchange(context_, nullptr));
  failures_.clear();
  // A silent server has had its time.
  const bool lost = why.kind() != ErrorKind::kCancelled && why.error_number() != ETIMEDOUT;
  const std::exception_ptr error = std::make_exception_ptr(why);
  pieces_.splice(pieces_.end(), later_);
  while (!queue_.empty()) {
    FileOperation* operation = queue_.front();
    queue_.pop_front();
    operation->all_asked = true;
    operation->error = error;
    operation->lost = lost;
    if (operation->pending == 0) finish_operation(*operation);
  }
  while (!pieces_.empty()) end_piece(pieces_.front(), error, lost);
}

}  // namespace cairn::nfs
