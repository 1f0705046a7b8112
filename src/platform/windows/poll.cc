#include <vector>

#include "platform/windows/sockets.h"
// After the headers of Windows.
#include "platform/poll.h"

namespace cairn::platform {

int poll(std::span<pollfd> entries, int timeout) {
  start_sockets();
  std::vector<WSAPOLLFD> asked;
  std::vector<size_t> places;
  int ready = 0;
  for (size_t i = 0; i < entries.size(); ++i) {
    entries[i].revents = 0;
    const Descriptor* const found = find_descriptor(entries[i].fd);
    if (found != nullptr && found->kind == Descriptor::Kind::kSocket) {
      // Windows refuses events that are only ever reported, not asked for.
      asked.push_back({static_cast<SOCKET>(found->value.load()),
                       static_cast<SHORT>(entries[i].events & (POLLIN | POLLOUT)), 0});
      places.push_back(i);
      continue;
    }
    // A file is always ready, and what is none has no end to wait for.
    entries[i].revents = found == nullptr ? POLLNVAL : entries[i].events;
    ready += entries[i].revents != 0 ? 1 : 0;
  }
  if (asked.empty()) {
    if (ready == 0) ::Sleep(timeout < 0 ? INFINITE : static_cast<DWORD>(timeout));
    return ready;
  }
  const int count =
      ::WSAPoll(asked.data(), static_cast<ULONG>(asked.size()), ready != 0 ? 0 : timeout);
  if (count == SOCKET_ERROR) return fail(static_cast<DWORD>(::WSAGetLastError()));
  for (size_t i = 0; i < asked.size(); ++i) entries[places[i]].revents = asked[i].revents;
  return ready + count;
}

}  // namespace cairn::platform
