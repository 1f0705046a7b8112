#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>

#include "base/error.h"
#include "daemon/commands/commands.h"
#include "daemon/daemon.h"
#include "daemon/exports.h"
#include "export/fuse/mount.h"

namespace cairn::daemon {
namespace {

// A node's disk as a file.
class FuseExport : public LiveExport {
 public:
  FuseExport(std::string id, RootPtr root, std::string mount_point, FuseOptions options)
      : LiveExport(std::move(id), "fuse", root),
        mount_point_(std::move(mount_point)),
        mount_(root->context(), root, std::move(options)) {}

  // The mount point, without links and "..".
  const std::string& mount_point() const { return mount_point_; }
  // Mounts and serves from now on. Throws what the system said.
  Task<void> start() {
    co_await run_blocking([this] { mount_.mount(); });
    serving_.spawn(serve());
  }

  bool in_use() const override { return false; }
  void request_shutdown() override { over_.request(); }
  Task<void> ended() override { co_await serving_.join(); }

 private:
  Task<void> serve() {
    try {
      co_await mount_.serve(over_, [] {});
    } catch (const Error& error) {
      root()->context().warn("export '" + id() + "': " + error.message());
    }
    // Unmounted by somebody else: it stays in the list until it is deleted.
    if (!over_.requested()) co_await await_ready(over_.descriptor(), POLLIN);
  }
  std::string mount_point_;
  FuseMount mount_;
  CancelSource over_;
  TaskGroup serving_;
};

// The true name of the file MOUNT_POINT. Throws where it is none. Blocks; a mount of this process
// may have to answer meanwhile.
std::string resolve(const std::string& mount_point) {
  struct stat info = {};
  if (::stat(mount_point.c_str(), &info) != 0)
    throw Error::system(errno, "Failed to stat '" + mount_point + "'");
  if (!S_ISREG(info.st_mode)) invalid("'" + mount_point + "' is not a regular file");
  char resolved[PATH_MAX];
  if (::realpath(mount_point.c_str(), resolved) == nullptr)
    throw Error::system(errno, "Failed to stat '" + mount_point + "'");
  return resolved;
}

Task<void> check_fuse(Daemon& daemon, Value arguments) {
  const std::string mount_point = text_of(arguments, "mountpoint");
  std::string resolved;
  co_await run_blocking([&] { resolved = resolve(mount_point); });
  bool taken = false;
  daemon.exports().each([&](const LiveExport& one) {
    const auto* mounted = dynamic_cast<const FuseExport*>(&one);
    taken |= mounted != nullptr && mounted->mount_point() == resolved;
  });
  if (taken) invalid("There already is a FUSE export on '" + mount_point + "'");
}

Task<std::unique_ptr<LiveExport>> make_fuse(ExportRequest request) {
  FuseOptions options;
  std::string resolved;
  const std::string mount_point = text_of(request.arguments, "mountpoint");
  co_await run_blocking([&] { resolved = resolve(mount_point); });
  options.mount_point = resolved;
  options.source = request.root->filename();
  options.writable = request.writable;
  options.growable = flag_of(request.arguments, "growable", false);
  const std::string allow = text_of(request.arguments, "allow-other");
  options.allow_other = allow == "on" || (allow != "off" && ::geteuid() == 0);
  options.truncatable = options.writable;
  options.owner_only = true;
  options.cut_off = true;
  auto made = std::make_unique<FuseExport>(request.id, request.root, resolved, std::move(options));
  co_await made->start();
  co_return made;
}

}  // namespace

ExportType fuse_export_type() {
  return {.name = "fuse", .resizes = true, .check = check_fuse, .make = make_fuse};
}

}  // namespace cairn::daemon
