#include "protocol/gluster/volume.h"

#include <fmt/core.h>

#include <cerrno>

#include "async/cancel.h"
#include "block/context.h"

namespace cairn::gluster {
namespace {

// The library asks a server that is not there for ever, and a wrong socket for minutes.
constexpr std::chrono::seconds kMostConnecting{30};

// Blocks. Null with errno set when the volume cannot be reached. The library is given all servers,
// the one numbered FIRST in front.
glfs_t* connect_by(const GfapiLibrary& library, const Location& location, const Settings& settings,
                   size_t first) {
  glfs_t* volume = library.glfs_new(location.volume.c_str());
  if (volume == nullptr) return nullptr;
  bool fine = true;
  for (size_t i = 0; i < location.servers.size(); ++i) {
    const Server& server = location.servers[(first + i) % location.servers.size()];
    fine = fine && library.glfs_set_volfile_server(volume, server.local ? "unix" : "tcp",
                                                   server.host.c_str(), server.port) == 0;
  }
  fine = fine && library.glfs_set_logging(volume, settings.log_file.c_str(), settings.debug) == 0;
  errno = 0;
  if (fine && library.glfs_init(volume) == 0) {
    // Without it a flush that fails throws away what was written.
    library.glfs_set_xlator_option(volume, "*-write-behind", "resync-failed-syncs-after-fsync",
                                   "on");
    return volume;
  }
  const int error = errno == 0 ? EINVAL : errno;
  library.glfs_fini(volume);
  errno = error;
  return nullptr;
}

// The library gives up when the first server is away and the next is of another kind.
glfs_t* connect_now(const GfapiLibrary& library, const Location& location,
                    const Settings& settings) {
  int error = EINVAL;
  for (size_t first = 0; first < location.servers.size(); ++first) {
    glfs_t* volume = connect_by(library, location, settings, first);
    if (volume != nullptr) return volume;
    error = errno;
    // Another server would not know the volume either.
    if (error == ENOENT) break;
  }
  errno = error;
  return nullptr;
}

// EXPLAIN: with the system's words, which QEMU leaves out.
Error failure(const Location& location, int error, bool explain) {
  const std::string text =
      fmt::format("Gluster connection for volume {}, path {} failed to connect", location.volume,
                  location.path);
  Error result = Error::system(error, text);
  if (!explain) result = Error(result.kind(), text);
  for (const Server& server : location.servers)
    result.hint(
        server.local
            ? fmt::format("hint: failed on socket {} Please refer to gluster logs for more info",
                          server.host)
            : fmt::format(
                  "hint: failed on host {} and port {} Please refer to gluster logs for more info",
                  server.host, server.port));
  return result;
}

}  // namespace

Task<glfs_t*> Volumes::connect(Context& context, Location location, Settings settings) {
  const GfapiLibrary& library = GfapiLibrary::get();
  std::shared_ptr<Slot> slot;
  {
    const std::lock_guard lock(mutex_);
    std::shared_ptr<Slot>& found = slots_[Key(location.volume, location.servers)];
    if (!found) found = std::make_shared<Slot>();
    slot = found;
  }
  const Mutex::Guard guard = co_await slot->opening.lock();
  if (slot->volume != nullptr) co_return slot->volume;
  auto made = std::make_shared<glfs_t*>(nullptr);
  auto errand = std::make_shared<Errand>();
  const auto work = [made, &library, location, settings]() -> ssize_t {
    *made = connect_now(library, location, settings);
    return *made == nullptr ? -1 : 0;
  };
  co_await watch_.call(errand, work, std::min(kMostConnecting, settings.timeout), context.cancel);
  if (errand->result() < 0) {
    if (errand->error() == ECANCELED) throw Error(ErrorKind::kCancelled, "cancelled");
    throw failure(location, errand->error(), context.profile.explanations);
  }
  slot->volume = *made;
  co_return slot->volume;
}

}  // namespace cairn::gluster
