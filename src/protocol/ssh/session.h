#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "async/task.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/own_fd.h"
#include "net/address.h"
#include "protocol/file_session.h"
#include "protocol/ssh/frames.h"
#include "protocol/ssh/host_key.h"
#include "protocol/ssh/ssh_library.h"

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
  bool explains = true;  // errors say what to do next
};

// A login at a server with one open file. open() connects, checks the host's key, logs in and opens
// the file, and throws with QEMU's words. Requests of SFTP are pipelined in both directions.
class Session : public FileSession {
 public:
  // CREATE: an empty file is made or emptied first.
  Session(const Target& target, bool writable, bool create, const CancelSource* cancel);
  ~Session() override;

 private:
  struct Piece {
    FileOperation* operation;
    size_t at;  // in the operation's buffer
    size_t length;
  };

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

  void advance(FileOperation& operation);
  void send_piece(FileOperation& operation, size_t at, size_t length);
  void send(ByteSpan frame);
  bool write_out();
  bool read_in();
  bool next_frame(std::vector<std::byte>* frame);
  void answer(ByteSpan frame);
  void answer_piece(const Piece& piece, FrameType type, FrameReader reader);
  std::vector<std::byte> transact(uint32_t id, ByteSpan frame);
  void drop_all(const Error& why);
  [[noreturn]] void lost(const std::string& what) const;

  const SshLibrary& ssh_;
  const Target target_;
  const bool writable_;
  const bool create_;

  // The thread's own.
  ssh_session session_ = nullptr;
  ssh_channel channel_ = nullptr;
  TransferLimits limits_;
  std::string handle_;
  uint32_t next_id_ = 1;
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
