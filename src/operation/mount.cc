#include "operation/mount.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>

#include "async/finally.h"
#include "operation/served_image.h"

namespace cairn::operation {
namespace {

constexpr const char* kMountPoints =
    "Partitions are mounted on a directory, the whole disk on a file.";

// The file or directory on which the image will appear; made when it is missing, and removed again
// when it goes.
class MountPoint {
 public:
  MountPoint(const std::string& name, bool directory) : directory_(directory) {
    struct stat info = {};
    if (::lstat(name.c_str(), &info) != 0) {
      if (errno == ENOTCONN) {
        throw Error::system(errno, name)
            .hint("The mount of a program that has died is there; clear it with: fusermount3 -u " +
                  name);
      }
      if (errno != ENOENT) throw Error::system(errno, name);
      const int fd = directory
                         ? ::mkdir(name.c_str(), 0700)
                         : ::open(name.c_str(), O_CREAT | O_EXCL | O_CLOEXEC | O_WRONLY, 0600);
      if (fd < 0) throw Error::system(errno, "Could not create '" + name + "'");
      if (!directory) ::close(fd);
      made_ = true;
    }
    char resolved[PATH_MAX];
    if (::realpath(name.c_str(), resolved) == nullptr) throw Error::system(errno, name);
    path_ = resolved;
    if (made_) return;
    if (::stat(resolved, &info) != 0) throw Error::system(errno, name);
    if (directory && !S_ISDIR(info.st_mode))
      throw Error(ErrorKind::kInvalid, "'" + name + "' is not a directory")
          .hint(kMountPoints, "partitions");
    if (!directory && !S_ISREG(info.st_mode))
      throw Error(ErrorKind::kInvalid, "'" + name + "' is not a regular file")
          .hint(kMountPoints, "partitions");
  }
  MountPoint(const MountPoint&) = delete;
  ~MountPoint() {
    struct stat info = {};
    if (!made_ || ::lstat(path_.c_str(), &info) != 0) return;
    if (directory_)
      ::rmdir(path_.c_str());
    else if (S_ISREG(info.st_mode) && info.st_size == 0)
      ::unlink(path_.c_str());
  }
  const std::string& path() const { return path_; }

 private:
  bool directory_;
  bool made_ = false;
  std::string path_;
};

void choose_partitions(const Caller& caller, const PartitionTable& table, FuseOptions& fuse) {
  for (const std::string& warning : table.warnings) caller.warn(warning);
  for (const Partition& partition : table.partitions)
    fuse.files.push_back({.name = "p" + std::to_string(partition.number),
                          .offset = partition.offset,
                          .length = partition.length});
}

}  // namespace

Task<void> mount(const Caller& caller, OpenRequest request, MountOptions options,
                 std::function<void(const Mounted&)> ready) {
  const DisksOutliveServer unhurried(caller.context);
  // The kernel relies on the size that it knows; an overlay keeps its own.
  request.flags.unshare_resize = !options.snapshot;
  NodePtr node = co_await open_image(caller.context, std::move(request), options.snapshot);
  UnflushedDisks unflushed;
  unflushed.add(*node);
  co_await finally(
      [&]() -> Task<void> {
        const MountPoint point(options.target, options.partitions);
        options.fuse.mount_point = point.path();
        PartitionTable table;
        if (options.partitions) {
          table = co_await read_partitions(*node);
          choose_partitions(caller, table, options.fuse);
          if (options.fuse.files.empty())
            throw Error(ErrorKind::kInvalid, "The partition table has no partitions")
                .hint(
                    "The whole disk can be mounted on a file; only its partitions need a "
                    "directory.",
                    "partitions");
        }
        FuseMount mount(caller.context, node, options.fuse);
        mount.mount();
        ready({.fuse = options.fuse, .table = table, .bytes = node->length()});
        co_await mount.serve(caller.cancel, [&caller] {
          caller.warn(
              "the mount is still in use: the image stays open until its last user has closed it");
        });
      },
      [&] { return close_all({node}); });
}

}  // namespace cairn::operation
