#pragma once

#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "async/task.h"
#include "base/bytes.h"
#include "base/error.h"
#include "protocol/library_thread.h"

namespace cairn {

class CancelSource;
class Worker;

// What a server says of a file; 0 where it says nothing.
struct FileAttributes {
  uint64_t device = 0, inode = 0;
  uint64_t size = 0;                       // bytes
  uint64_t used = 0;                       // bytes on its disk
  uint64_t modified = 0, modified_ns = 0;  // seconds, and nanoseconds of the last one
};

// A piece of work on the open file of a session. Belongs to the coroutine that awaits it, as do the
// buffers.
struct FileOperation {
  enum class Kind : uint8_t { kRead, kWrite, kSync, kResize, kAttributes, kRemove };
  static FileOperation read(uint64_t offset, MutableByteSpan out) {
    return {.kind = Kind::kRead, .offset = offset, .out = out};
  }
  static FileOperation write(uint64_t offset, ByteSpan in) {
    return {.kind = Kind::kWrite, .offset = offset, .in = in};
  }
  static FileOperation resize(uint64_t length) { return {.kind = Kind::kResize, .offset = length}; }
  static FileOperation sync() { return {.kind = Kind::kSync}; }
  // Takes the file's name away.
  static FileOperation remove() { return {.kind = Kind::kRemove}; }
  static FileOperation ask_attributes() { return {.kind = Kind::kAttributes}; }

  bool has_data() const { return kind == Kind::kRead || kind == Kind::kWrite; }
  size_t length() const { return kind == Kind::kRead ? out.size() : in.size(); }
  // What the server gave for its memory at each write, or at the sync; nothing when it gave
  // several. It gives another one when it may have lost what it had there.
  std::optional<uint64_t> verifier() const { return verifiers_differ ? std::nullopt : given; }

  Kind kind = Kind::kRead;
  uint64_t offset = 0;  // kResize: the new length
  MutableByteSpan out = {};
  ByteSpan in = {};

  // The answer.
  std::exception_ptr error = {};   // what went wrong, or null
  bool lost = false;               // there was none, since the connection broke
  FileAttributes attributes = {};  // kAttributes
  std::optional<uint64_t> given = {};
  bool verifiers_differ = false;

  // Used by the session.
  size_t asked = 0;      // bytes for which requests were made
  unsigned pending = 0;  // requests without an answer
  bool all_asked = false;
  Worker* worker = nullptr;
  std::coroutine_handle<> handle = {};
};

// A connection to a server with one open file, on a thread of its own that makes many requests at a
// time. A protocol gives it connect(), serve() and finish(), which calls end_work().
class FileSession : public LibraryThread {
 public:
  ~FileSession() override;

  // Does OPERATION; what went wrong is in it. From any worker; OPERATION lives until then.
  Task<void> perform(FileOperation& operation);

  // What was known when the file was opened.
  const FileAttributes& attributes() const { return attributes_; }
  // Whether the server can put the file on stable storage when it is asked to.
  bool can_sync() const { return can_sync_; }
  // How many bytes are asked for or wait to be.
  size_t load() const { return load_.load(std::memory_order_relaxed); }
  // Whether the session has ended.
  bool broken() const { return broken_.load(std::memory_order_acquire); }

 protected:
  // As of LibraryThread.
  FileSession(std::string name, const CancelSource* cancel);

  // All of these are called on the thread.
  // Moves what workers have handed over to the end of queue_.
  void take_work();
  // OPERATION is done, or has failed: the coroutine that waits for it is resumed.
  void finish_operation(FileOperation& operation);
  // The session is over, and WHY: every later operation fails. What has not failed yet is in
  // queue_, as far as the session has not taken it from there.
  void end_work(const Error& why);

  // Of the opening, then not changed.
  FileAttributes attributes_;
  bool can_sync_ = true;
  std::deque<FileOperation*> queue_;  // not all of whose requests were made

 private:
  struct Doing;

  std::atomic<size_t> load_{0};
  std::atomic<bool> broken_{false};
  std::mutex mutex_;
  std::deque<FileOperation*> submitted_;  // guarded by mutex_, as are the next two
  std::optional<Error> over_;             // set: no operations are taken any more
};

// Opens SESSION, which makes a file at the server, gives the file SIZE bytes, and ends SESSION.
// Throws.
Task<void> make_remote_file(FileSession& session, uint64_t size);
// Opens SESSION, removes its file, and ends SESSION. Throws.
Task<void> remove_remote_file(FileSession& session);

}  // namespace cairn
