#include "protocol/iscsi/session.h"

#include <fmt/core.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <span>
#include <thread>
#include <utility>

#include "async/runtime.h"
#include "base/bytes.h"
#include "protocol/iscsi/answers.h"

namespace cairn::iscsi {
namespace {

// How often it is checked for a cancellation, and the library gets its turn.
constexpr int kMomentMs = 150;
constexpr auto kNopPeriod = std::chrono::seconds(5);
constexpr int kMostNops = 3;
constexpr size_t kMostFlying = 128;  // commands
constexpr unsigned kMostAttempts = 7;
// So many connections may be lost with one and the same command: a target, or something on the way
// to it, may be unable to answer it.
constexpr unsigned kMostLosses = 5;
// With so many commands under way the target has enough to do while the thread waits a moment for
// more answers than one: each time it is woken costs the target more than an answer.
constexpr size_t kGatherFrom = 8;
constexpr auto kGather = std::chrono::microseconds(20);
constexpr size_t kMarkSpacing = 4096;
// Of a target that is busy: the mean waits grow fourfold from here on.
constexpr double kFirstWaitMs = 8;

// The errno that stands for what the unit said.
int errno_of_sense(const scsi_sense& sense) {
  if (sense.key == SCSI_SENSE_COMMAND_ABORTED) return ECANCELED;
  switch (sense.ascq) {
    case 0x1a00:
    case 0x2000:
    case 0x2400:
    case 0x2600:
      return EINVAL;
    case 0x2100:
    case 0x2707:
      return ENOSPC;
    case 0x2500:
      return ENOTSUP;
    case 0x3a00:
    case 0x3a01:
    case 0x3a02:
      return ENOMEDIUM;
    case 0x2700:
      return EACCES;
    case 0x0401:
      return EINPROGRESS;
    case 0x0402:
      return ENOTCONN;
    default:
      return EIO;
  }
}

}  // namespace

struct Session::Doing {
  Session& session;
  Command& command;
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> handle) {
    command.session_ = &session;
    command.worker_ = Worker::current();
    command.handle_ = handle;
    const std::lock_guard lock(session.mutex_);
    if (session.over_) {
      command.error_ = std::make_exception_ptr(*session.over_);
      return false;
    }
    session.load_ += command.length();
    session.submitted_.push_back(&command);
    session.wake();
    return true;
  }
  void await_resume() const noexcept {}
};

Session::Session(const Target& target, const CancelSource* cancel)
    : LibraryThread("cairn-iscsi", cancel),
      library_(IscsiLibrary::get()),
      target_(target),
      random_(std::random_device{}()) {}

Session::~Session() { stop(); }

Task<void> Session::perform(Command& command) { co_await Doing{*this, command}; }

Error Session::failure(const std::string& what) const {
  std::string text = library_.iscsi_get_error(context_);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return Error(ErrorKind::kIo, text.empty() ? what : what + " : " + text);
}

void Session::connect() {
  log_in();
  learn();
}

void Session::finish(const Error& why, bool connected) {
  drop_all(why);
  if (context_ == nullptr) return;
  if (connected && library_.iscsi_is_logged_in(context_) != 0) log_out();
  library_.iscsi_destroy_context(context_);
}

// A target that does not answer the logout is left.
void Session::log_out() {
  bool left = false;
  library_.iscsi_logout_async(
      context_, [](iscsi_context*, int, void*, void* done) { *static_cast<bool*>(done) = true; },
      &left);
  const auto deadline = Clock::now() + std::chrono::milliseconds(500);
  while (!left && Clock::now() < deadline) {
    pollfd ready{library_.iscsi_get_fd(context_),
                 static_cast<short>(library_.iscsi_which_events(context_)), 0};
    if (ready.fd < 0 || ::poll(&ready, 1, 50) < 0) break;
    if (library_.iscsi_service(context_, ready.revents) < 0) break;
  }
}

// Waits for the target or for work, a moment at most.
void Session::turn(Clock::time_point deadline) {
  resume_all();
  check_stop();
  if (Clock::now() >= deadline) throw Error::system(ETIMEDOUT, "iSCSI: the target does not answer");
  // The descriptor changes with every new connection.
  pollfd fds[2] = {{wake_fd(), POLLIN, 0},
                   {library_.iscsi_get_fd(context_),
                    static_cast<short>(library_.iscsi_which_events(context_)), 0}};
  ::poll(fds, fds[1].fd < 0 || fds[1].events == 0 ? 1 : 2, kMomentMs);
  if (flying_.size() >= kGatherFrom && fds[1].revents == POLLIN)
    std::this_thread::sleep_for(kGather);
  if (fds[0].revents != 0) take_wake();
  check_stop();
  if (library_.iscsi_service(context_, fds[1].revents) < 0)
    throw failure("iSCSI: the connection was lost");
}

// --- the unit at work ---

void Session::serve() {
  zeroes_.assign(unit_.block_bytes, std::byte{});
  last_nop_ = Clock::now();
  for (;;) {
    const auto now = Clock::now();
    for (size_t i = 0; i < later_.size();)
      if (later_[i].first <= now) {
        Command* command = later_[i].second;
        later_.erase(later_.begin() + static_cast<ptrdiff_t>(i));
        start(*command);
      } else {
        ++i;
      }
    while (flying_.size() < kMostFlying) {
      Command* next = nullptr;
      {
        const std::lock_guard lock(mutex_);
        if (submitted_.empty()) break;
        next = submitted_.front();
        submitted_.pop_front();
      }
      start(*next);
    }
    keep_alive();
    turn(Clock::time_point::max());
    count_losses();
  }
}

// The library makes a lost connection again, and sends again what has no answer: for ever.
void Session::count_losses() {
  const bool connected = library_.iscsi_is_logged_in(context_) != 0;
  if (!connected && connected_)
    for (Command* command : flying_)
      if (++command->losses_ == kMostLosses)
        throw failure(fmt::format("iSCSI: {} connections were lost with one and the same request",
                                  kMostLosses));
  connected_ = connected;
}

// A line that is dead without saying so is found by questions that need no unit.
void Session::keep_alive() {
  const auto now = Clock::now();
  if (now - last_nop_ < kNopPeriod) return;
  last_nop_ = now;
  if (library_.iscsi_get_nops_in_flight(context_) >= kMostNops) {
    library_.iscsi_reconnect(context_);
    return;
  }
  library_.iscsi_nop_out_async(context_, nullptr, nullptr, 0, nullptr);
}

void Session::start(Command& command) {
  flying_.push_back(&command);
  command.buffer_ = {command.out_.empty() ? const_cast<std::byte*>(command.in_.data())
                                          : static_cast<void*>(command.out_.data()),
                     command.length()};
  command.mark_ = random_();
  for (size_t end = command.out_.size(); end >= sizeof command.mark_;
       end -= std::min(end, kMarkSpacing))
    store_le<uint64_t>(command.out_, end - sizeof command.mark_, command.mark_);
  command.task_ = make_task(command);
  if (command.task_ != nullptr) return;
  command.error_ = std::make_exception_ptr(failure("iSCSI: the command could not be sent"));
  finish_command(command);
}

scsi_task* Session::make_task(Command& command) {
  using Kind = Command::Kind;
  const bool wide = unit_.long_addresses();
  const uint64_t block = command.block_;
  const auto low = static_cast<uint32_t>(block);
  const auto bytes = static_cast<uint32_t>(command.length());
  const int size = static_cast<int>(unit_.block_bytes);
  const int lun = target_.lun;
  const int fua = command.fua_ ? 1 : 0;
  const int unmap = command.unmap_ ? 1 : 0;
  auto* zeroes = reinterpret_cast<unsigned char*>(zeroes_.data());
  unmap_list part{.lba = block, .num = static_cast<uint32_t>(command.count_)};
  switch (command.kind_) {
    case Kind::kRead:
      return wide ? library_.iscsi_read16_iov_task(context_, lun, block, bytes, size, 0, 0, 0, 0, 0,
                                                   &on_answer, &command, &command.buffer_, 1)
                  : library_.iscsi_read10_iov_task(context_, lun, low, bytes, size, 0, 0, 0, 0, 0,
                                                   &on_answer, &command, &command.buffer_, 1);
    case Kind::kWrite:
      return wide ? library_.iscsi_write16_iov_task(context_, lun, block, nullptr, bytes, size, 0,
                                                    0, fua, 0, 0, &on_answer, &command,
                                                    &command.buffer_, 1)
                  : library_.iscsi_write10_iov_task(context_, lun, low, nullptr, bytes, size, 0, 0,
                                                    fua, 0, 0, &on_answer, &command,
                                                    &command.buffer_, 1);
    case Kind::kSync:
      return library_.iscsi_synchronizecache10_task(context_, lun, 0, 0, 0, 0, &on_answer,
                                                    &command);
    case Kind::kUnmap:
      return library_.iscsi_unmap_task(context_, lun, 0, 0, &part, 1, &on_answer, &command);
    case Kind::kWriteSame:
      // The short form where only that one can unmap.
      if (!wide && command.unmap_ && !unit_.same_unmaps)
        return library_.iscsi_writesame10_task(context_, lun, low, zeroes, unit_.block_bytes,
                                               static_cast<uint16_t>(command.count_), 0, unmap, 0,
                                               0, &on_answer, &command);
      return library_.iscsi_writesame16_task(context_, lun, block, zeroes, unit_.block_bytes,
                                             static_cast<uint32_t>(command.count_), 0, unmap, 0, 0,
                                             &on_answer, &command);
    case Kind::kProvisioning: {
      constexpr uint32_t kDescriptors = 64;
      return library_.iscsi_get_lba_status_task(context_, lun, block, 8 + 16 * kDescriptors,
                                                &on_answer, &command);
    }
    case Kind::kCapacity:
      return library_.iscsi_readcapacity16_task(context_, lun, &on_answer, &command);
    case Kind::kExtendedCopy: {
      iscsi_data list{.size = command.in_.size(),
                      .data = static_cast<unsigned char*>(command.buffer_.iov_base)};
      return library_.iscsi_extended_copy_task(context_, lun, &list, &on_answer, &command);
    }
  }
  return nullptr;
}

void Session::on_answer(iscsi_context*, int status, void* data, void* command) {
  auto& each = *static_cast<Command*>(command);
  each.session_->answered(each, status, static_cast<scsi_task*>(data));
}

void Session::answered(Command& command, int status, scsi_task* task) {
  if (task == nullptr) task = command.task_;
  command.task_ = nullptr;
  if (status == SCSI_STATUS_GOOD) {
    if (!all_came(command, task)) {
      command.error_ = std::make_exception_ptr(
          Error(ErrorKind::kIo, "iSCSI: the target sent fewer bytes than it was asked for"));
    } else if (task != nullptr && task->datain.data != nullptr && task->datain.size > 0) {
      const ByteSpan answer =
          std::as_bytes(std::span(task->datain.data, static_cast<size_t>(task->datain.size)));
      if (command.kind_ == Command::Kind::kProvisioning)
        command.provisioning_ = read_provisioning(answer);
      if (command.kind_ == Command::Kind::kCapacity)
        command.count_ = blocks_of(answer).value_or(unit_.blocks);
    }
  } else if (comes_again(command, status, task)) {
    if (task != nullptr) library_.scsi_free_scsi_task(task);
    return;
  } else if (status == SCSI_STATUS_CANCELLED) {
    command.error_ = std::make_exception_ptr(
        end_ ? *end_ : Error(ErrorKind::kIo, "iSCSI: the library gave the request up"));
  } else {
    const bool sense = status == SCSI_STATUS_CHECK_CONDITION && task != nullptr;
    const int error = sense ? errno_of_sense(task->sense) : EIO;
    command.refused_ = sense && task->sense.key == SCSI_SENSE_ILLEGAL_REQUEST;
    std::string text = library_.iscsi_get_error(context_);
    while (!text.empty() && text.back() == '\n') text.pop_back();
    command.error_ = std::make_exception_ptr(Error::system(error).hint(
        fmt::format("iSCSI, at block {}: {}", command.block_,
                    text.empty() ? fmt::format("status {}", status) : text)));
  }
  if (task != nullptr) library_.scsi_free_scsi_task(task);
  finish_command(command);
}

// Whether all bytes that were asked for have been stored: the target may have sent fewer without
// saying so, and the library does not say how many came. Marks are where none were stored.
bool Session::all_came(const Command& command, const scsi_task* task) const {
  if (command.kind_ != Command::Kind::kRead) return true;
  if (task == nullptr) return false;
  if (task->residual_status == SCSI_RESIDUAL_UNDERFLOW && task->residual != 0) return false;
  const ByteSpan out = command.out_;
  for (size_t end = out.size(); end >= sizeof command.mark_; end -= std::min(end, kMarkSpacing))
    if (load_le<uint64_t>(out, end - sizeof command.mark_) == command.mark_) return false;
  return true;
}

// Whether COMMAND is worth another attempt, which is then arranged.
bool Session::comes_again(Command& command, int status, const scsi_task* task) {
  std::chrono::milliseconds wait{0};
  if (status == SCSI_STATUS_BUSY || status == SCSI_STATUS_TASK_SET_FULL) {
    std::exponential_distribution<double> spread(1.0);
    const double mean =
        kFirstWaitMs * static_cast<double>(uint64_t{1} << (2 * std::min(command.attempt_, 6U)));
    wait =
        std::chrono::milliseconds(static_cast<int64_t>(std::min(mean * spread(random_), 60'000.0)));
  } else if (status == SCSI_STATUS_TIMEOUT) {
    wait = std::chrono::seconds(2);
    library_.iscsi_reconnect(context_);
  } else if (status == SCSI_STATUS_CHECK_CONDITION && task != nullptr) {
    const auto key = task->sense.key;
    if (key != SCSI_SENSE_NO_SENSE && key != SCSI_SENSE_RECOVERED_ERROR &&
        key != SCSI_SENSE_UNIT_ATTENTION)
      return false;
  } else {
    return false;
  }
  if (++command.attempt_ > kMostAttempts) return false;
  flying_.remove(&command);
  later_.emplace_back(Clock::now() + wait, &command);
  return true;
}

void Session::finish_command(Command& command) {
  flying_.remove(&command);
  load_ -= command.length();
  resume(*command.worker_, command.handle_, command.length());
}

// The session is over: the library calls back for what it has, then commands that wait fail.
void Session::drop_all(const Error& why) {
  std::vector<Command*> waiting;
  {
    const std::lock_guard lock(mutex_);
    over_ = why;
    waiting.assign(submitted_.begin(), submitted_.end());
    submitted_.clear();
  }
  for (const auto& [when, command] : later_) waiting.push_back(command);
  later_.clear();
  for (Command* each : waiting) {
    each->error_ = std::make_exception_ptr(why);
    finish_command(*each);
  }
  if (flying_.empty()) return;
  end_ = why;
  library_.iscsi_destroy_context(std::exchange(context_, nullptr));
}

}  // namespace cairn::iscsi
