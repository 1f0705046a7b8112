#pragma once

#include <chrono>
#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <vector>

#include "async/task.h"
#include "base/bytes.h"
#include "base/error.h"
#include "protocol/file_session.h"
#include "protocol/nfs/location.h"
#include "protocol/nfs/nfs_library.h"

namespace cairn::nfs {

// Which file of which server, and how one gets there.
struct Target {
  std::string host;
  Place place;
  unsigned version = 3;
  unsigned nfs_port = 0, mount_port = 0;  // 0: as the server's port mapper says, 2049 for NFS 4
  std::optional<unsigned> user, group;    // numbers; else those of the process
  unsigned syn_count = 0;                 // 0: the system's
  unsigned readahead = 0;                 // bytes
  unsigned page_cache = 0;                // pages
  unsigned debug = 0;
  std::chrono::seconds timeout{30};
  unsigned sessions = 4;
  unsigned retries = 3;
};

FileAttributes attributes_of(const nfs_stat_64& all);

// A mounted export with one open file. open() throws with QEMU's words. Many requests are under way
// at a time. The library's own reconnection is off: it would not say that something may be missing.
class Session : public FileSession {
 public:
  // CREATE: an empty file is made or emptied first.
  Session(const Target& target, bool writable, bool create, const CancelSource* cancel);
  ~Session() override;

 private:
  struct Answer;
  // A request to the server. Without an operation it only shows that we are still here.
  struct Piece {
    Session* session;
    FileOperation* operation;
    size_t at;  // in the operation's buffer
    size_t length;
    Clock::time_point deadline;
    Clock::time_point start = {};  // not before
    std::list<Piece>::iterator self = {};
  };

  void connect() override;
  [[noreturn]] void serve() override;
  void finish(const Error& why, bool connected) override;

  void prepare();
  void reach_server();
  // How an error reads: WHAT, then the words of the library between the others.
  struct Words {
    std::string what, before = {}, after = {};
  };
  // Waits for the answer to the call that START makes. Throws when it does not come.
  template <class Start>
  void ask(Answer* answer, const Start& start, const Words& words);
  void open_file();
  void turn(int most_ms);
  // Ends the context as well. WAITS, a moment at most, for the server to know it.
  void close_file(bool waits);

  void advance(FileOperation& operation);
  void start(FileOperation* operation, size_t at, size_t length);
  void send(Piece& piece);
  int send_write(Piece& piece);
  nfs_fh3 file_handle() const;
  int send_version_3(Piece& piece);
  int send_version_4(Piece& piece);
  void send_later_ones();
  void keep_alive();
  void check_deadlines() const;
  void answered(Piece& piece, int result, const void* data);
  void answered_read(Piece& piece, const READ3res& result);
  void answered_write(Piece& piece, const WRITE3res& result);
  void answered_commit(Piece& piece, const COMMIT3res& result);
  // Whether STATUS is a success; else the piece has failed.
  bool succeeded(Piece& piece, nfsstat3 status);
  void answered_data(Piece& piece, size_t count, const void* data);
  void settle_failures();
  void end_piece(Piece& piece, std::exception_ptr error, bool lost = false);
  void drop_all(const Error& why);
  std::string error_text() const;
  static void on_answer(int result, nfs_context* context, void* data, void* piece);
  static void on_reply(rpc_context* context, int status, void* data, void* piece);
  static void on_asked(int result, nfs_context* context, void* data, void* answer);

  const NfsLibrary& nfs_;
  const Target target_;
  const bool writable_;
  const bool create_;

  // Of the opening, then not changed.
  size_t most_read_ = 0;  // bytes of a request

  // The thread's own.
  nfs_context* context_ = nullptr;
  size_t most_write_ = 0;  // bytes of a request
  nfsfh* file_ = nullptr;
  std::list<Piece> pieces_;  // that have no answer
  std::list<Piece> later_;   // to be sent again
  struct Failure {
    Piece* piece;
    int error;
    std::string text;
  };
  std::vector<Failure> failures_;  // of one turn
  size_t flying_ = 0;              // bytes of all pieces
  Clock::time_point last_use_{};   // when a read or a write was sent
};

}  // namespace cairn::nfs
