#include "control/successor.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

#include "base/own_fd.h"
#include "operation/operation.h"

namespace cairn::control {
namespace {

// The link, and from the next one on the sockets.
constexpr int kLink = 3;
constexpr const char* kVariable = "CAIRN_HANDOVER";

// How this process was started.
struct Origin {
  std::string program;
  std::vector<std::string> words;
  OwnFd directory;
  ServiceVariables service;
};

std::vector<std::string> words_of_this() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  if (words.empty()) throw Error(ErrorKind::kIo, "/proc/self/cmdline cannot be read");
  return words;
}

std::vector<std::string> variables_for(const Origin& origin, size_t sockets) {
  std::vector<std::string> variables;
  for (char** at = environ; *at != nullptr; ++at) variables.emplace_back(*at);
  variables.push_back(std::string(kVariable) + "=" + std::to_string(::getpid()) + ":" +
                      std::to_string(sockets));
  if (!origin.service.notify.empty()) variables.push_back("NOTIFY_SOCKET=" + origin.service.notify);
  if (!origin.service.watchdog.empty())
    variables.push_back("WATCHDOG_USEC=" + origin.service.watchdog);
  return variables;
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

// What the child does before it becomes the program.
class ChildSteps {
 public:
  ChildSteps() {
    ::posix_spawn_file_actions_init(&actions_);
    ::posix_spawnattr_init(&attributes_);
    // Threads of the library block what is meant for the program.
    sigset_t none;
    ::sigemptyset(&none);
    ::posix_spawnattr_setsigmask(&attributes_, &none);
    ::posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK);
  }
  ~ChildSteps() {
    ::posix_spawn_file_actions_destroy(&actions_);
    ::posix_spawnattr_destroy(&attributes_);
  }
  ChildSteps(const ChildSteps&) = delete;

  void enter(int directory) { ::posix_spawn_file_actions_addfchdir_np(&actions_, directory); }
  // DESCRIPTOR is above all targets.
  void place(int descriptor, int target) {
    ::posix_spawn_file_actions_adddup2(&actions_, descriptor, target);
  }
  int spawn(const Origin& origin, std::vector<std::string> variables) {
    std::vector<std::string> words = origin.words;
    pid_t pid = -1;
    const int failed = ::posix_spawn(&pid, origin.program.c_str(), &actions_, &attributes_,
                                     pointers_to(words).data(), pointers_to(variables).data());
    if (failed != 0) throw Error::system(failed, "Could not start '" + origin.program + "'");
    return pid;
  }

 private:
  posix_spawn_file_actions_t actions_;
  posix_spawnattr_t attributes_;
};

daemon::SuccessorProcess start(const Origin& origin, const std::vector<int>& sockets) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    throw Error::system(errno, "socketpair");
  daemon::SuccessorProcess process;
  process.link = Socket(ends[0]);
  const OwnFd far(ends[1]);
  std::vector<int> given{far.get()};
  given.insert(given.end(), sockets.begin(), sockets.end());
  const int above = kLink + static_cast<int>(given.size());
  ChildSteps steps;
  steps.enter(origin.directory.get());
  std::vector<OwnFd> copies;
  for (size_t i = 0; i < given.size(); ++i) {
    copies.emplace_back(::fcntl(given[i], F_DUPFD_CLOEXEC, above));
    if (copies.back().get() < 0) throw Error::system(errno, "Could not hand a socket over");
    steps.place(copies.back().get(), kLink + static_cast<int>(i));
  }
  process.pid = steps.spawn(origin, variables_for(origin, sockets.size()));
  return process;
}

}  // namespace

daemon::StartSuccessor successor_of_this(ServiceVariables service) {
  auto origin = std::make_shared<Origin>();
  origin->words = words_of_this();
  origin->program = origin->words.front();
  // Found by the shell, or by who else started it.
  if (origin->program.find('/') == std::string::npos)
    origin->program = std::filesystem::read_symlink("/proc/self/exe");
  origin->directory = OwnFd(::open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (origin->directory.get() < 0) throw Error::system(errno, "Could not open '.'");
  origin->service = std::move(service);
  return [origin](const std::vector<int>& sockets) { return start(*origin, sockets); };
}

std::optional<Inheritance> take_inheritance() {
  const char* value = std::getenv("CAIRN_HANDOVER");
  if (value == nullptr) return std::nullopt;
  const std::string text = value;
  ::unsetenv(kVariable);
  // For the process that is started with it, and not for those that inherit its environment.
  const std::string mine = std::to_string(::getppid()) + ":";
  if (!text.starts_with(mine)) return std::nullopt;
  Inheritance inheritance;
  inheritance.link = kLink;
  const int count = std::atoi(text.c_str() + mine.size());
  for (int i = 0; i <= count; ++i) {
    const int descriptor = kLink + i;
    if (::fcntl(descriptor, F_SETFD, FD_CLOEXEC) != 0)
      throw Error(ErrorKind::kInvalid, "CAIRN_HANDOVER promises descriptors that are not open");
    if (i != 0) inheritance.sockets.push_back(descriptor);
  }
  return inheritance;
}

}  // namespace cairn::control
