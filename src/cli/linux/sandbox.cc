#include "cli/sandbox.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cli/verbs.h"
#include "operation/spools.h"
#include "operation/target.h"

namespace cairn::cli {
namespace {

// The kernel's interface as of landlock ABI 6; older kernels take the first members.
struct RulesetAttribute {
  uint64_t handled_access_fs;
  uint64_t handled_access_net;
  uint64_t scoped;
};
struct __attribute__((packed)) PathRule {
  uint64_t allowed_access;
  int32_t parent_fd;
};
constexpr uint64_t kWriteFile = 1 << 1;
constexpr uint64_t kReadFile = 1 << 2;
constexpr uint64_t kReadFolder = 1 << 3;
constexpr uint64_t kTruncate = 1 << 14;
constexpr uint64_t kIoctlDevice = 1 << 15;

struct Known {
  int abi;
  uint64_t mask;
};
// All that each version knows, by its bits.
constexpr Known kFileAccess[] = {
    {1, (1 << 13) - 1}, {2, (1 << 14) - 1}, {3, (1 << 15) - 1}, {5, (1 << 16) - 1}};

uint64_t file_access(int abi) {
  uint64_t mask = 0;
  for (const Known& known : kFileAccess)
    if (abi >= known.abi) mask = known.mask;
  return mask;
}

void allow_path(int ruleset, const std::string& path, uint64_t access) {
  const int fd = ::open(path.c_str(), O_PATH | O_CLOEXEC);
  if (fd < 0) return;  // opening it will say why
  struct stat status = {};
  if (::fstat(fd, &status) == 0 && S_ISDIR(status.st_mode)) access |= kReadFolder;
  const PathRule rule{access, fd};
  const long done = ::syscall(SYS_landlock_add_rule, ruleset, 1, &rule, 0);
  const int error = errno;
  ::close(fd);
  // A directory takes no rights of files; it is no image either.
  if (done != 0 && error != EINVAL) throw Error::system(error, "landlock: '" + path + "'");
}

// False where the kernel has no landlock.
bool shut_files(const Reach& reach) {
  const long abi = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, 1);
  if (abi < 1) return false;
  const uint64_t known = file_access(static_cast<int>(abi));
  RulesetAttribute attribute{known, 0, 0};
  if (abi >= 4) attribute.handled_access_net = 3;  // binding and connecting
  if (abi >= 6) attribute.scoped = 3;              // abstract sockets, signals
  const size_t bytes = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
  const int ruleset =
      static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attribute, bytes, 0));
  if (ruleset < 0) return false;
  for (const std::string& path : reach.readable)
    allow_path(ruleset, path, (kReadFile | kIoctlDevice) & known);
  for (const std::string& path : reach.writable)
    allow_path(ruleset, path, (kReadFile | kWriteFile | kTruncate | kIoctlDevice) & known);
  const long done = ::syscall(SYS_landlock_restrict_self, ruleset, 0);
  ::close(ruleset);
  return done == 0;
}

// What reading, writing and waiting need, on threads of this process.
constexpr int kAllowed[] = {
    SCMP_SYS(read),
    SCMP_SYS(pread64),
    SCMP_SYS(preadv),
    SCMP_SYS(preadv2),
    SCMP_SYS(readv),
    SCMP_SYS(write),
    SCMP_SYS(pwrite64),
    SCMP_SYS(pwritev),
    SCMP_SYS(pwritev2),
    SCMP_SYS(writev),
    SCMP_SYS(open),
    SCMP_SYS(openat),
    SCMP_SYS(close),
    SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),
    SCMP_SYS(openat2),
    SCMP_SYS(getdents64),
    SCMP_SYS(stat),
    SCMP_SYS(lstat),
    SCMP_SYS(statx),
    SCMP_SYS(fstatfs),
    SCMP_SYS(statfs),
    SCMP_SYS(lseek),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(brk),
    SCMP_SYS(madvise),
    SCMP_SYS(futex),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(gettid),
    SCMP_SYS(getpid),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(nanosleep),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(getrandom),
    SCMP_SYS(fcntl),
    SCMP_SYS(dup2),
    SCMP_SYS(dup3),
    SCMP_SYS(ioctl),
    SCMP_SYS(fsync),
    SCMP_SYS(fdatasync),
    SCMP_SYS(sync_file_range),
    SCMP_SYS(fadvise64),
    SCMP_SYS(fallocate),
    SCMP_SYS(ftruncate),
    SCMP_SYS(copy_file_range),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(epoll_create1),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(eventfd2),
    SCMP_SYS(timerfd_create),
    SCMP_SYS(timerfd_settime),
    SCMP_SYS(setitimer),
    SCMP_SYS(access),
    SCMP_SYS(faccessat),
    SCMP_SYS(readlink),
    SCMP_SYS(readlinkat),
    SCMP_SYS(getcwd),
    SCMP_SYS(uname),
    SCMP_SYS(getuid),
    SCMP_SYS(geteuid),
    SCMP_SYS(getgid),
    SCMP_SYS(getegid),
    SCMP_SYS(membarrier),
#ifdef CAIRN_SANITIZED
    SCMP_SYS(pipe),  // how sanitizers find out whether memory can be read
    SCMP_SYS(pipe2),
#endif
    SCMP_SYS(restart_syscall),
    SCMP_SYS(tgkill),
    SCMP_SYS(getrusage),
};
// What only a program that was taken over would try.
constexpr int kDeadly[] = {
    SCMP_SYS(execve),
    SCMP_SYS(execveat),
    SCMP_SYS(socket),
    SCMP_SYS(ptrace),
    SCMP_SYS(fork),
    SCMP_SYS(vfork),
    SCMP_SYS(process_vm_writev),
    SCMP_SYS(mount),
    SCMP_SYS(bpf),
    SCMP_SYS(setuid),
    SCMP_SYS(init_module),
    SCMP_SYS(kexec_load),
};

// What came through a pipe, and what was packed in it; a target's tables, or all of it.
constexpr unsigned kPipeFiles = 2;

bool shut_calls() {
  const scmp_filter_ctx filter = ::seccomp_init(SCMP_ACT_ERRNO(EPERM));
  if (filter == nullptr) return false;
  int failed = 0;
  for (const int call : kAllowed) failed |= ::seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
  for (const int call : kDeadly)
    failed |= ::seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, call, 0);
  // Memory that can be run is not made any more.
  for (const int call : {SCMP_SYS(mmap), SCMP_SYS(mprotect)})
    failed |= ::seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1,
                                 SCMP_A2(SCMP_CMP_MASKED_EQ, 4 /* PROT_EXEC */, 0));
  // Threads, no processes; the C library asks clone3 first and then does without.
  constexpr uint64_t kThread = 0x10000;
  failed |= ::seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                               SCMP_A0(SCMP_CMP_MASKED_EQ, kThread, kThread));
  failed |= ::seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
  constexpr uint64_t kSetName = 15;
  failed |= ::seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
                               SCMP_A0(SCMP_CMP_EQ, kSetName, 0));
  // Limits may be asked for, not set.
  failed |= ::seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1,
                               SCMP_A2(SCMP_CMP_EQ, 0, 0));
  const bool done = failed == 0 && ::seccomp_load(filter) == 0;
  ::seccomp_release(filter);
  return done;
}

void limit(__rlimit_resource resource, uint64_t most, uint64_t hard) {
  const struct rlimit wanted = {most, hard};
  ::setrlimit(resource, &wanted);
}

void shut_in(const Session& session, const Reach& reach, const Budget& budget) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  // A ring could ask for more than the filter sees.
  session.context.runtime().set_engine(EngineKind::kThreads);
  session.context.local_only = true;
  ::tzset();  // reads the time zone while it can
#ifndef CAIRN_SANITIZED
  // Sanitizers reserve memory by the terabyte.
  limit(RLIMIT_DATA, budget.memory, budget.memory);
#endif
  limit(RLIMIT_CPU, budget.cpu_seconds, budget.cpu_seconds + 1);
  limit(RLIMIT_CORE, 0, 0);
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    throw Error::system(errno, "Could not give up privileges");
  if (!shut_files(reach))
    session.warning("this kernel has no landlock: other files are not shut off");
  if (!shut_calls()) session.warning("this kernel has no seccomp: system calls are not shut off");
}

// The child of this process, for the handler.
volatile sig_atomic_t child_id = 0;

// A terminal signals the child itself; what a program sent to us is for it.
void pass_on(int signal, siginfo_t* info, void*) {
  if (child_id > 0 && info->si_code != SI_KERNEL) ::kill(child_id, signal);
}

void pass_signals_on() {
  struct sigaction action = {};
  action.sa_sigaction = pass_on;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) ::sigaction(signal, &action, nullptr);
}

std::string plain_path(const std::string& name) {
  for (const std::string_view prefix : {"file:", "host_device:", "host_cdrom:"})
    if (name.starts_with(prefix)) return name.substr(prefix.size());
  if (name.starts_with("fat:")) return name.substr(name.rfind(':') + 1);
  return name;
}

// Every file or directory that a list of options names.
void add_named(const Options& options, std::vector<std::string>& paths) {
  for (const auto& [key, value] : options.items())
    if (key == "filename" || key.ends_with(".filename") || key == "file" || key == "dir" ||
        key.ends_with(".dir"))
      if (const auto* text = value.get_if<std::string>()) paths.push_back(plain_path(*text));
}

void add_name(const std::string& name, bool image_opts, std::vector<std::string>& paths) {
  if (image_opts)
    add_named(Options::parse_list(name, "file"), paths);
  else if (name.starts_with("json:"))
    add_named(Options::from_value(Value::parse(name.substr(5))), paths);
  else
    paths.push_back(plain_path(name));
}

}  // namespace

Reach reach_of(const Verb& verb, const Arguments& arguments) {
  Reach reach;
  const auto& words = arguments.words();
  const bool copies = verb.name == "convert";
  reach.create = copies && !arguments.has('n');
  if (reach.create && arguments.has(kOverwrite) && words.back() != "-")
    reach.replaced = plain_path(words.back());
  const bool repairs = verb.name == "check" && arguments.has('r');
  for (size_t i = 0; i < words.size(); ++i) {
    const bool target = copies && words.size() > 1 && i + 1 == words.size();
    if (words[i] == "-") {
      reach.temporary += kPipeFiles;
      // A file is read in place.
      struct stat status = {};
      if (!target && ::fstat(STDIN_FILENO, &status) == 0 &&
          (S_ISREG(status.st_mode) || S_ISBLK(status.st_mode)))
        reach.readable.push_back("/proc/self/fd/0");
      continue;
    }
    add_name(words[i], arguments.has(target ? int{kTargetImageOpts} : int{kImageOpts}),
             target || repairs ? reach.writable : reach.readable);
  }
  if (copies)
    if (const auto backing = arguments.value('B')) add_name(*backing, false, reach.readable);
  for (const std::string& object : arguments.values(kObject))
    if (!object.starts_with("{"))
      add_named(Options::parse_list(object, "qom-type"), reach.readable);
  return reach;
}

int run_sandboxed(Session& session, Reach reach, const Budget& budget,
                  const std::function<int()>& work) {
  // Rules are for what exists.
  std::vector<std::string> made;
  for (const std::string& path : reach.writable) {
    if (!reach.create) break;
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) continue;
    ::close(fd);
    made.push_back(path);
  }
  struct stat replaced = {};
  if (!reach.replaced.empty() && ::stat(reach.replaced.c_str(), &replaced) == 0 &&
      S_ISREG(replaced.st_mode) && replaced.st_size != 0) {
    session.replacement = std::make_shared<FileReplacement>(reach.replaced);
    reach.writable.push_back(session.replacement->new_path());
  }
  const operation::Spools spools(session.context, reach.readable, reach.temporary, budget.output);
  const std::vector<std::string>& paths = session.context.unpacking.spools;
  reach.writable.insert(reach.writable.end(), paths.begin(), paths.end());
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child < 0) throw Error::system(errno, "Could not start a process");
  if (child == 0) {
    int code = 1;
    try {
      shut_in(session, reach, budget);
      code = work();
    } catch (const std::exception& error) {
      session.error(error.what());
    }
    std::fflush(nullptr);
    ::_exit(code);
  }
  child_id = child;
  pass_signals_on();
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  child_id = 0;
  int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    code = signal == SIGINT || signal == SIGTERM || signal == SIGHUP ? 128 + signal : 1;
    if (signal == SIGXCPU || signal == SIGKILL)
      session.error(
          fmt::format("stopped: the image took more than its budget of {} s of processor "
                      "time\n--budget cpu=SECONDS gives it more.",
                      budget.cpu_seconds));
    else if (signal == SIGSYS)
      session.error("stopped: reading the image led to a system call that reading never needs");
    else
      session.error(std::string("stopped by a fault: ") + ::strsignal(signal));
  }
  if (code == 0 && session.replacement) session.replacement->commit();
  if (code != 0)
    for (const std::string& path : made) {
      struct stat file = {};
      const bool content = ::stat(path.c_str(), &file) == 0 && file.st_size != 0;
      if (::unlink(path.c_str()) == 0 && content)
        std::fprintf(stderr, "'%s' was removed.\n", path.c_str());
    }
  return code;
}

}  // namespace cairn::cli
