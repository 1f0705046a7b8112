#include "control/pid_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "operation/operation.h"

namespace cairn::control {

PidFile::PidFile(const std::string& path) : path_(std::filesystem::absolute(path)) {
  try {
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd_ < 0) throw Error::system(errno, "Could not create '" + path + "'");
    struct flock whole {};
    whole.l_type = F_WRLCK;
    whole.l_whence = SEEK_SET;
    if (::fcntl(fd_, F_SETLK, &whole) != 0) throw Error::system(errno, "Cannot lock pid file");
    const std::string text = std::to_string(::getpid()) + "\n";
    if (::ftruncate(fd_, 0) != 0 ||
        ::write(fd_, text.data(), text.size()) != static_cast<ssize_t>(text.size()))
      throw Error::system(errno, "Failed to write pid file");
  } catch (Error& error) {
    if (fd_ >= 0) ::close(fd_);
    throw error.context("cannot create PID file");
  }
}

PidFile::~PidFile() {
  if (fd_ < 0) return;
  ::unlink(path_.c_str());
  ::close(fd_);
}

void PidFile::leave() { ::close(std::exchange(fd_, -1)); }

}  // namespace cairn::control
