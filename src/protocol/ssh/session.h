#pragma once

#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "async/task.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/own_fd.h"
#include "net/address.h"
#include "protocol/library_thread.h"
#include "protocol/ssh/frames.h"
#include "protocol/ssh/host_key.h"
#include "protocol/ssh/ssh_library.h"

namespace cairn {
class CancelSource;
class Worker;
}  // namespace cairn

namespace cairn::ssh {

// Which file of which server, and how one gets there.
struct Target {
  SocketAddress server;
  bool default_port = true;  // nothing was said of the port: the configuration of ssh may
  std::string user;          // empty: as the configuration of ssh says, else the user's own name
  std::string path;
  HostKeyCheck host_key;
  std::string known_hosts_file;  // empty: libssh's own
  std::string password;
  std::string key_file, key_passphrase;
  std::chrono::seconds timeout{30};
  unsigned sessions = 2;
  unsigned retries = 3;
};

// A piece of work on the open file.
class Operation {
 public:
  enum class Kind : uint8_t { kRead, kWrite, kSync, kResize, kAttributes };
  explicit Operation(Kind kind) : kind_(kind) {}
  static Operation read(uint64_t offset, MutableByteSpan out) {
    Operation result(Kind::kRead);
    result.offset_ = offset;
    result.out_ = out;
    return result;
  }
  static Operation write(uint64_t offset, ByteSpan in) {
    Operation result(Kind::kWrite);
    result.offset_ = offset;
    result.in_ = in;
    return result;
  }
  static Operation resize(uint64_t length) {
    Operation result(Kind::kResize);
    result.offset_ = length;
    return result;
  }

  // When it was done: what went wrong, or null.
  const std::exception_ptr& error() const { return error_; }
  // There was no answer, since the connection broke.
  bool lost() const { return lost_; }
  // Of kAttributes.
  const Attributes& attributes() const { return attributes_; }
  size_t length() const { return kind_ == Kind::kRead ? out_.size() : in_.size(); }

 private:
  friend class Session;
  Kind kind_;
  uint64_t offset_ = 0;  // kResize: the new length
  MutableByteSpan out_;
  ByteSpan in_;
  Attributes attributes_;
  std::exception_ptr error_;
  bool lost_ = false;
  size_t asked_ = 0;      // bytes for which requests were sent
  unsigned pending_ = 0;  // requests without an answer
  bool sent_ = false;     // a request without data was
  Worker* worker_ = nullptr;
  std::coroutine_handle<> handle_;
};

// A login at a server with one open file. open() connects, checks the host's key, logs in and opens
// the file, and throws with QEMU's words. Requests of SFTP are pipelined in both directions.
class Session : public LibraryThread {
 public:
  // CREATE: an empty file is made or emptied first.
  Session(const Target& target, bool writable, bool create, const CancelSource* cancel);
  ~Session() override;

  // Does OPERATION; what went wrong is in it. From any worker; OPERATION lives until then.
  Task<void> perform(Operation& operation);

  // What was known when the file was opened.
  const Attributes& attributes() const { return attributes_; }
  bool can_sync() const { return can_sync_; }
  // How many bytes are asked for or wait to be.
  size_t load() const { return load_.load(std::memory_order_relaxed); }
  bool broken() const { return broken_.load(std::memory_order_acquire); }

 private:
  using Clock = std::chrono::steady_clock;
  struct Piece {
    Operation* operation;
    size_t at;  // in the operation's buffer
    size_t length;
  };
  struct Doing;

  void connect() override;
  [[noreturn]] void serve() override;
  void finish(const Error& why, bool connected) override;
  // Waits for the socket or for work, a moment at most. Throws when the session is to end, or when
  // DEADLINE has passed.
  void wait(short events, Clock::time_point deadline, const char* what);
  // Repeats CALL, which gives AGAIN while it would block.
  template <class Call>
  int until_done(Call call, int again, const char* what);

  void start_session();
  void read_configuration();
  OwnFd connect_socket();
  void check_host_key();
  void log_in();
  bool try_key_file();
  bool try_keyboard();
  void start_sftp();
  void open_file();

  void take_work();
  void advance(Operation& operation);
  void send_piece(Operation& operation, size_t at, size_t length);
  void send(std::vector<std::byte> frame);
  bool write_out();
  bool read_in();
  bool next_frame(std::vector<std::byte>* frame);
  void answer(ByteSpan frame);
  void answer_piece(const Piece& piece, FrameType type, FrameReader reader);
  std::vector<std::byte> transact(uint32_t id, std::vector<std::byte> frame);
  void finish_operation(Operation& operation);
  void drop_all(const Error& why);
  [[noreturn]] void lost(const std::string& what) const;

  const SshLibrary& ssh_;
  const Target target_;
  const bool writable_;
  const bool create_;
  std::atomic<size_t> load_{0};
  std::atomic<bool> broken_{false};

  std::mutex mutex_;
  std::deque<Operation*> submitted_;
  bool over_ = false;  // nobody takes operations any more
  std::string why_over_;

  // Of the opening, then not changed.
  Attributes attributes_;
  bool can_sync_ = false;

  // The thread's own.
  ssh_session session_ = nullptr;
  ssh_channel channel_ = nullptr;
  TransferLimits limits_;
  std::string handle_;
  uint32_t next_id_ = 1;
  std::deque<Operation*> queue_;  // not all of whose requests were sent
  std::unordered_map<uint32_t, Piece> pieces_;
  size_t flying_ = 0;  // bytes of all pieces
  std::vector<std::byte> out_;
  size_t out_done_ = 0;
  // What was read last: kept, since each new one would be zeroed first.
  std::vector<std::byte> part_;
  std::vector<std::byte> in_;
  size_t in_done_ = 0;
  Clock::time_point heard_{};
};

}  // namespace cairn::ssh
