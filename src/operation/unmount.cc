
#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "base/own_fd.h"
#include "operation/mount.h"

namespace cairn::operation {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;
constexpr auto kPause = 20ms;

// The table of mounts writes blanks and the like as \OOO.
std::string plain(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      const std::string digits(text.substr(i + 1, 3));
      result += static_cast<char>(std::strtol(digits.c_str(), nullptr, 8));
      i += 3;
    } else {
      result += text[i];
    }
  }
  return result;
}

// The type of what is mounted last on PATH; empty: nothing is.
std::string mounted_type(const std::string& path) {
  std::ifstream table("/proc/self/mounts");
  std::string source;
  std::string point;
  std::string type;
  std::string rest;
  std::string found;
  while (table >> source >> point >> type && std::getline(table, rest))
    if (plain(point) == path) found = type;
  return found;
}

// Without a look at the mount itself, which would fail where its program has died.
std::string absolute(const std::string& name) {
  const size_t end = name.find_last_not_of('/');
  const std::string path = end == std::string::npos ? name : name.substr(0, end + 1);
  const size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const std::string last = path.substr(slash + 1);
  char resolved[PATH_MAX];
  // A link leads to the mount point; what is there cannot be resolved when its program has died.
  struct stat info = {};
  const bool whole =
      last == "." || last == ".." || (::lstat(path.c_str(), &info) == 0 && S_ISLNK(info.st_mode));
  if (::realpath(whole ? path.c_str() : directory.c_str(), resolved) == nullptr)
    throw Error::system(errno, "'" + name + "'");
  if (whole) return resolved;
  return std::string(resolved) + (resolved[1] == 0 ? "" : "/") + last;
}

// A descriptor that becomes readable when the program that serves PATH has ended; none when that
// program has died or is not to be seen from here.
OwnFd server_of(const std::string& path) {
  char text[32] = "";
  if (::getxattr(path.c_str(), kProcessAttribute, text, sizeof text - 1) <= 0) return OwnFd();
  return OwnFd(static_cast<int>(::syscall(SYS_pidfd_open, std::atoi(text), 0)));
}

// True when PATH was unmounted, false when it is in use. Throws when neither.
bool try_unmount(const std::string& path) {
  if (::umount2(path.c_str(), UMOUNT_NOFOLLOW) == 0) return true;
  if (errno == EBUSY) return false;
  if (errno != EPERM) throw Error::system(errno, "Could not unmount '" + path + "'");
  std::string words[] = {"fusermount3", "-u", "-q", "--", path};
  char* argv[6] = {};
  for (size_t i = 0; i < 5; ++i) argv[i] = words[i].data();
  char* environment[] = {nullptr};
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, argv[0], nullptr, nullptr, argv, environment);
  if (error != 0)
    throw Error::system(error, "Could not run fusermount3").hint("Install the package fuse3.");
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  // It does not say why: only who mounted may unmount, and not what is in use.
  return status == 0 || mounted_type(path).empty();
}

[[noreturn]] void still_there(const std::string& name, const std::string& why,
                              const Hint& instead) {
  throw Error(ErrorKind::kLocked, "'" + name + "' " + why).hint(instead.text, instead.setting);
}

void wait_for_server(const Caller& caller, const std::string& name, int server,
                     Clock::time_point end) {
  while (true) {
    caller.cancel.check();
    pollfd ended = {.fd = server, .events = POLLIN, .revents = 0};
    if (::poll(&ended, 1, 100) > 0) return;
    if (Clock::now() >= end)
      still_there(name, "is unmounted, but the program that served it still writes the image",
                  {"Wait for its end before the image is used, or allow more time.", "timeout"});
  }
}

}  // namespace

std::string unmount(const Caller& caller, const std::string& name, std::chrono::seconds patience) {
  const auto end = Clock::now() + patience;
  const std::string path = absolute(name);
  const std::string type = mounted_type(path);
  if (type.empty()) throw Error(ErrorKind::kInvalid, "Nothing is mounted on '" + name + "'");
  if (type != "fuse.cairn")
    throw Error(ErrorKind::kInvalid, "'" + name + "' is a mount of another kind (" + type + ")")
        .hint("Use the program that belongs to it, or umount.");
  const OwnFd server = server_of(path);
  while (!try_unmount(path)) {
    caller.cancel.check();
    if (Clock::now() >= end)
      still_there(
          name,
          fmt::format("is still in use after {} seconds, and stays mounted", patience.count()),
          {"Close the programs that use it (`fuser -v -m " + name +
               "` lists them) and try again; only the user who mounted it, or root, may "
               "unmount it.",
           {}});
    std::this_thread::sleep_for(kPause);
  }
  if (server.get() >= 0) wait_for_server(caller, name, server.get(), end);
  return path;
}

}  // namespace cairn::operation
