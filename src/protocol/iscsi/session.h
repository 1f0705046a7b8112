#pragma once

#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "async/task.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/own_fd.h"
#include "protocol/iscsi/iscsi_library.h"
#include "protocol/iscsi/unit.h"
#include "protocol/library_thread.h"

namespace cairn {
class CancelSource;
class Worker;
}  // namespace cairn

namespace cairn::iscsi {

// Which unit of which target, and how one gets there.
struct Target {
  bool iser = false;
  std::string portal;  // HOST[:PORT]
  std::string name;    // of the target
  int lun = 0;
  std::string user, password;                // of the initiator
  std::string target_user, target_password;  // which the target must prove
  std::string initiator;
  iscsi_header_digest digest = ISCSI_HEADER_DIGEST_NONE_CRC32C;
  unsigned timeout = 0;  // seconds per request; 0: none
  unsigned sessions = 1;
  bool explains = true;  // errors say what to do next
};

// A command to the unit.
class Command {
 public:
  enum class Kind : uint8_t {
    kRead,
    kWrite,
    kSync,
    kUnmap,
    kWriteSame,
    kProvisioning,
    kCapacity,
    kExtendedCopy  // IN is the list of parameters
  };
  explicit Command(Kind kind, uint64_t block = 0, uint64_t count = 0)
      : kind_(kind), block_(block), count_(count) {}
  Command(const Command&) = delete;
  void set_out(MutableByteSpan out) { out_ = out; }
  void set_in(ByteSpan in) { in_ = in; }
  void set_fua() { fua_ = true; }
  void set_unmap() { unmap_ = true; }

  // When it was done: what went wrong, or null.
  const std::exception_ptr& error() const { return error_; }
  // The unit does not know the command, or not for these blocks.
  bool refused() const { return refused_; }
  const std::vector<Provisioning>& provisioning() const { return provisioning_; }
  // Of kCapacity.
  uint64_t blocks() const { return count_; }
  size_t length() const { return out_.size() + in_.size(); }

 private:
  friend class Session;
  const Kind kind_;
  const uint64_t block_;
  uint64_t count_;
  MutableByteSpan out_;
  ByteSpan in_;
  bool fua_ = false, unmap_ = false;
  std::exception_ptr error_;
  bool refused_ = false;
  std::vector<Provisioning> provisioning_;
  class Session* session_ = nullptr;
  scsi_task* task_ = nullptr;
  scsi_iovec buffer_{};
  uint64_t mark_ = 0;  // no content that a target could know
  unsigned attempt_ = 0, losses_ = 0;
  Worker* worker_ = nullptr;
  std::coroutine_handle<> handle_;
};

// A login at a target. open() logs in and asks what the unit is, and throws with QEMU's words. The
// library logs in again when the connection is lost, and sends again what has no answer.
class Session : public LibraryThread {
 public:
  Session(const Target& target, const CancelSource* cancel);
  ~Session() override;

  const Unit& unit() const { return unit_; }
  // Does COMMAND; what went wrong is in it. From any worker; COMMAND lives until then.
  Task<void> perform(Command& command);
  // How many bytes are asked for.
  size_t load() const { return load_.load(std::memory_order_relaxed); }

 private:
  using Clock = std::chrono::steady_clock;
  struct Doing;
  struct Answer;

  void connect() override;
  [[noreturn]] void serve() override;
  void finish(const Error& why, bool connected) override;
  void log_out();
  void turn(Clock::time_point deadline);
  void log_in();
  void learn();
  void learn_mode();
  void learn_capacity();
  void learn_pages();
  // The page CODE of vital product data; empty when there is none.
  std::vector<std::byte> ask_page(uint8_t code);
  // Waits for the answer of the task that START makes.
  scsi_task* ask(const std::function<scsi_task*(iscsi_command_cb, void*)>& start, int* status);

  void start(Command& command);
  scsi_task* make_task(Command& command);
  void answered(Command& command, int status, scsi_task* task);
  bool comes_again(Command& command, int status, const scsi_task* task);
  void finish_command(Command& command);
  void drop_all(const Error& why);
  void keep_alive();
  void count_losses();
  bool all_came(const Command& command, const scsi_task* task) const;
  Error failure(const std::string& what) const;
  static void on_answer(iscsi_context* context, int status, void* data, void* command);
  static void on_asked(iscsi_context* context, int status, void* data, void* answer);

  const IscsiLibrary& library_;
  const Target target_;
  std::atomic<size_t> load_{0};

  std::mutex mutex_;
  std::deque<Command*> submitted_;
  std::optional<Error> over_;  // set: no commands are taken any more

  // Of the opening, then not changed.
  Unit unit_;

  // The thread's own.
  iscsi_context* context_ = nullptr;
  std::list<Command*> flying_;
  std::vector<std::pair<Clock::time_point, Command*>> later_;  // that are tried again
  std::vector<std::byte> zeroes_;                              // a block
  Clock::time_point last_nop_{};
  bool connected_ = true;
  std::optional<Error> end_;  // why the requests end that the library still has
  std::mt19937_64 random_;
};

}  // namespace cairn::iscsi
