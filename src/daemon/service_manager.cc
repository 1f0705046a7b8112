#include "daemon/service_manager.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

namespace cairn::daemon {

void ServiceManager::tell(std::string_view lines) const {
  struct sockaddr_un target {};
  target.sun_family = AF_UNIX;
  const bool known = address_.starts_with('/') || address_.starts_with('@');
  if (!known || address_.size() >= sizeof target.sun_path) return;
  std::memcpy(target.sun_path, address_.data(), address_.size());
  if (address_.front() == '@') target.sun_path[0] = '\0';
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address_.size());
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  constexpr struct timeval kLongest = {1, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &kLongest, sizeof kLongest);
  [[maybe_unused]] const ssize_t sent =
      ::sendto(fd, lines.data(), lines.size(), MSG_NOSIGNAL,
               reinterpret_cast<const struct sockaddr*>(&target), size);
  ::close(fd);
}

Task<void> ServiceManager::keep_alive(Nap& nap) const {
  while (watchdog_.count() > 0 && !nap.woken()) {
    tell("WATCHDOG=1");
    co_await nap.sleep_for(watchdog_ / 2);
  }
}

}  // namespace cairn::daemon
