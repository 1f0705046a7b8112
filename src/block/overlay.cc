#include "block/overlay.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>

#include "base/arith.h"
#include "block/context.h"

namespace cairn {
namespace {

// A file without a name that goes when its last descriptor does.
class UnnamedFile {
 public:
  UnnamedFile() {
    const char* set = ::getenv("TMPDIR");
    std::string folder = set != nullptr && *set != 0 ? set : "/var/tmp";
    if (folder == "/tmp") folder = "/var/tmp";
    fd_ = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd_ < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {
      // File systems without such files: a named one, for a moment.
      std::string name = folder + "/cairn-overlay-XXXXXX";
      fd_ = ::mkostemp(name.data(), O_CLOEXEC);
      if (fd_ >= 0) ::unlink(name.c_str());
    }
    if (fd_ < 0)
      throw Error::system(errno, "Could not make a temporary overlay in '" + folder + "'");
  }
  UnnamedFile(const UnnamedFile&) = delete;
  ~UnnamedFile() { ::close(fd_); }
  // A path by which this process can open it.
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_ = -1;
};

Task<NodePtr> lay_over(Context& context, NodePtr base) {
  const UnnamedFile file;
  CreateOptions fresh;
  fresh.filename = file.path();
  fresh.format = "qcow2";
  fresh.size = align_up(base->length(), 512);
  co_await create_image(context, std::move(fresh));
  OpenRequest over;
  over.display = "temporary overlay";
  over.options.set("driver", "qcow2");
  over.options.set("file.driver", "file");
  over.options.set("file.filename", file.path());
  over.options.set("file.locking", "off");
  over.flags.writable = true;
  over.flags.resize = true;
  over.flags.discard_unmap = true;
  over.flags.cache.no_flush = true;
  over.backing = std::move(base);
  NodePtr node = co_await open_node(context, std::move(over));
  co_return node;
}

}  // namespace

Task<NodePtr> open_with_snapshot_overlay(Context& context, OpenRequest request) {
  request.flags.writable = false;
  request.flags.resize = false;
  NodePtr base = co_await open_node(context, std::move(request));
  std::exception_ptr error;
  try {
    NodePtr node = co_await lay_over(context, base);
    co_return node;
  } catch (...) {
    error = std::current_exception();
  }
  co_await base->close();
  std::rethrow_exception(error);
}

}  // namespace cairn
