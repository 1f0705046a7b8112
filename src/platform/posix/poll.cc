#include "platform/poll.h"

namespace cairn::platform {

int poll(std::span<pollfd> entries, int timeout) {
  return ::poll(entries.data(), static_cast<nfds_t>(entries.size()), timeout);
}

}  // namespace cairn::platform
