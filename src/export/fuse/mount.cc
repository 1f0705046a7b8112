#include "export/fuse/mount.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>

#include "async/finally.h"
#include "async/task_group.h"
#include "export/fuse/channel.h"
#include "export/fuse/file_system.h"
#include "export/fuse/library.h"

namespace cairn {

using fuse::Channel;
using fuse::FileSystem;
using fuse::Library;

namespace {

// So many requests are taken before it is checked what else there is to do.
constexpr unsigned kBurst = 16;
// A helper that was woken so often without finding a request goes home.
constexpr unsigned kPatience = 16;

constexpr size_t kReadAhead = 4 * fuse::kMaxTransfer;

// What libfuse had to say, for the message of a mount that failed.
thread_local std::string* said = nullptr;

void listen_to(fuse_log_level, const char* format, va_list words) {
  if (said == nullptr) return;
  char line[400];
  std::vsnprintf(line, sizeof line, format, words);
  *said += line;
}

// A value inside of a list that is separated by commas.
std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == ',' || c == '\\') result += '\\';
    result += static_cast<unsigned char>(c) < 32 ? '?' : c;
  }
  return result;
}

// A descriptor of the system, closed when it goes.
struct Descriptor {
  Descriptor(int number, const char* what) : fd(number) {
    if (fd < 0) throw Error::system(errno, what);
  }
  Descriptor(const Descriptor&) = delete;
  ~Descriptor() { ::close(fd); }
  const int fd;
};

// Has the kernel read further ahead of a reader in sequence than its usual 128 KiB, so that several
// requests of full length are under way. Only root may say so; without, it stays as it is.
void read_further_ahead(const std::string& mount_point) {
  struct statx status = {};
  // Attributes as they are known: asking for them would be a request to ourselves.
  if (::statx(AT_FDCWD, mount_point.c_str(), AT_STATX_DONT_SYNC, STATX_TYPE, &status) != 0) return;
  const std::string knob =
      fmt::format("/sys/class/bdi/{}:{}/read_ahead_kb", status.stx_dev_major, status.stx_dev_minor);
  const int fd = ::open(knob.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  const std::string text = std::to_string(kReadAhead >> 10);
  [[maybe_unused]] const ssize_t written = ::write(fd, text.data(), text.size());
  ::close(fd);
}

// Takes the mount out of the tree; who has a file of it open keeps it, or is CUT_OFF. Blocks.
void detach(const std::string& mount_point, bool cut_off) {
  const int how = MNT_DETACH | UMOUNT_NOFOLLOW | (cut_off ? MNT_FORCE : 0);
  if (::umount2(mount_point.c_str(), how) == 0) return;
  if (errno != EPERM) throw Error::system(errno, "Could not unmount '" + mount_point + "'");
  std::string words[] = {"fusermount3", "-u", "-q", "-z", "--", mount_point};
  char* argv[7] = {};
  char* const no_environment[] = {nullptr};
  for (size_t i = 0; i < 6; ++i) argv[i] = words[i].data();
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, argv[0], nullptr, nullptr, argv, no_environment);
  if (error != 0) throw Error::system(error, "Could not run fusermount3");
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (status != 0)
    throw Error(ErrorKind::kIo, "Could not unmount '" + mount_point + "' with fusermount3");
}

}  // namespace

class FuseMount::Impl {
 public:
  Impl(Context& context, NodePtr node, FuseOptions options)
      : context_(context),
        library_(Library::load()),
        node_(std::move(node)),
        files_(library_, node_, std::move(options)) {}
  ~Impl() {
    channels_.clear();
    if (session_ == nullptr) return;
    library_.session_unmount(session_);
    library_.session_destroy(session_);
  }

  void mount();
  Task<void> serve(CancelSource& cancel, std::function<void()> still_used);

 private:
  // Replies go to the descriptor that their request came from: that of this worker.
  static ssize_t send(int, iovec* parts, int count, void* self) {
    const unsigned index = Worker::current()->resident_index().value();
    return ::writev(static_cast<Impl*>(self)->channels_[index]->fd(), parts, count);
  }
  static ssize_t receive(int fd, void* memory, size_t size, void*) {
    return ::read(fd, memory, size);
  }

  Task<void> lead(Channel& channel);
  Task<void> lead_others(Channel& channel, TaskGroup& helpers);
  Task<void> help(Channel& channel, std::atomic<bool>& busy);
  Task<void> watch(CancelSource& cancel, int over, std::function<void()> still_used);

  Context& context_;
  const Library& library_;
  NodePtr node_;
  FileSystem files_;
  fuse_session* session_ = nullptr;
  std::vector<std::unique_ptr<Channel>> channels_;
  std::vector<std::unique_ptr<std::atomic<bool>>> helping_;
  std::atomic<bool> over_{false};
};

void FuseMount::Impl::mount() {
  const FuseOptions& options = files_.options();
  std::string list = "default_permissions,subtype=cairn,fsname=" + escaped(options.source);
  if (!options.writable) list += ",ro";
  if (options.allow_other) list += ",allow_other";
  fuse_args arguments = {};
  library_.set_log_func(listen_to);
  std::string heard;
  said = &heard;
  library_.opt_add_arg(&arguments, "cairn");
  library_.opt_add_arg(&arguments, ("-o" + list).c_str());
  session_ =
      library_.session_new(&arguments, &FileSystem::operations(), sizeof(fuse_lowlevel_ops), this);
  library_.opt_free_args(&arguments);
  const bool mounted =
      session_ != nullptr && library_.session_mount(session_, options.mount_point.c_str()) == 0;
  said = nullptr;
  if (!mounted) {
    while (!heard.empty() && heard.back() == '\n') heard.pop_back();
    if (session_ != nullptr) library_.session_destroy(std::exchange(session_, nullptr));
    Error error(ErrorKind::kIo, fmt::format("Could not mount '{}': {}", options.mount_point,
                                            (heard.empty() ? "libfuse gave no reason" : heard)));
    if (::access("/dev/fuse", F_OK) != 0)
      error.hint("The kernel's FUSE is not there: try `modprobe fuse`.");
    else if (::access("/dev/fuse", R_OK | W_OK) != 0)
      error.hint("Without root, /dev/fuse must be open to everybody: chmod 666 /dev/fuse");
    if (heard.find("allow_other") != std::string::npos)
      error.hint("Other users are let in only when /etc/fuse.conf says user_allow_other.");
    throw error;
  }
  const int fd = library_.session_fd(session_);
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  fuse_custom_io io = {};
  io.writev = send;
  io.read = receive;
  const int error = library_.session_custom_io(session_, &io, fd);
  if (error != 0) throw Error::system(-error, "libfuse");
}

// Worker 0 always watches for requests. When several wait at a time it calls the other workers,
// which stay while they find work: a lone reader wakes one thread, many are served by all.
Task<void> FuseMount::Impl::lead(Channel& channel) {
  TaskGroup helpers;
  co_await finally([&]() -> Task<void> { co_await lead_others(channel, helpers); },
                   [&]() -> Task<void> {
                     over_ = true;
                     co_await channel.finish();
                     co_await helpers.join();
                   });
}

Task<void> FuseMount::Impl::lead_others(Channel& channel, TaskGroup& helpers) {
  bool greeted = false;
  while (true) {
    const unsigned count = channel.drain(kBurst);
    if (channel.ended()) break;
    // The kernel's first request agrees on the least of what both want.
    if (count != 0 && !std::exchange(greeted, true))
      read_further_ahead(files_.options().mount_point);
    if (count > 1) {
      for (size_t i = 1; i < channels_.size(); ++i)
        if (!helping_[i]->exchange(true))
          helpers.spawn_on(channels_[i]->worker(), help(*channels_[i], *helping_[i]));
    }
    co_await channel.wait_for_room();
    if (count == kBurst)
      co_await yield_now();
    else
      co_await channel.wait_for_request();
  }
}

Task<void> FuseMount::Impl::help(Channel& channel, std::atomic<bool>& busy) {
  unsigned in_vain = 0;
  while (!over_ && in_vain < kPatience) {
    const unsigned count = channel.drain(kBurst);
    if (channel.ended()) break;
    in_vain = count == 0 ? in_vain + 1 : 0;
    co_await channel.wait_for_room();
    if (count == kBurst)
      co_await yield_now();
    else
      co_await channel.wait_for_request();
  }
  co_await channel.finish();
  busy = false;
}

// Unmounts when that is asked for; ends when OVER becomes readable.
Task<void> FuseMount::Impl::watch(CancelSource& cancel, int over,
                                  std::function<void()> still_used) {
  const int asked = cancel.descriptor();
  const Descriptor either(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  for (const int fd : {asked, over}) {
    epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
    if (::epoll_ctl(either.fd, EPOLL_CTL_ADD, fd, &event) != 0)
      throw Error::system(errno, "epoll_ctl");
  }
  co_await await_ready(either.fd, POLLIN);
  if (over_) co_return;
  try {
    co_await run_blocking(
        [this] { detach(files_.options().mount_point, files_.options().cut_off); });
  } catch (const Error& error) {
    if (!over_ && context_.warn) context_.warn(error.message());
    co_return;
  }
  co_await sleep_for(std::chrono::milliseconds(200));
  if (!over_ && still_used) still_used();
}

Task<void> FuseMount::Impl::serve(CancelSource& cancel, std::function<void()> still_used) {
  co_await files_.prepare();
  Runtime& runtime = context_.runtime();
  const int fd = library_.session_fd(session_);
  for (unsigned i = 0; i < runtime.worker_count(); ++i) {
    channels_.push_back(std::make_unique<Channel>(library_, files_, session_, runtime.worker(i)));
    channels_.back()->open(fd);
    helping_.push_back(std::make_unique<std::atomic<bool>>(false));
  }
  const Descriptor over(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd");
  TaskGroup group;
  group.spawn(watch(cancel, over.fd, std::move(still_used)));
  co_await run_on(channels_[0]->worker(), lead(*channels_[0]));
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(over.fd, &one, sizeof one);
  co_await group.join();
}

FuseMount::FuseMount(Context& context, NodePtr node, FuseOptions options)
    : impl_(std::make_unique<Impl>(context, std::move(node), std::move(options))) {}
FuseMount::~FuseMount() = default;
void FuseMount::mount() { impl_->mount(); }
Task<void> FuseMount::serve(CancelSource& cancel, std::function<void()> still_used) {
  return impl_->serve(cancel, std::move(still_used));
}

}  // namespace cairn
