#include "export/fuse/mount.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>

#include "base/size.h"
#include "block/overlay.h"
#include "block/partitions.h"
#include "cli/report.h"
#include "cli/signals.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

enum MountId : int { kGrowable = kFirstOwn, kPartitions, kAllowOther, kFork, kSnapshot };

struct MountWanted {
  FuseOptions fuse;
  bool partitions = false;
  bool snapshot = false;
  bool quiet = false;
};

// The file or folder on which the image will appear; made when it is missing, and removed again
// when it goes.
class MountPoint {
 public:
  MountPoint(const std::string& name, bool folder) : folder_(folder) {
    struct stat info = {};
    if (::lstat(name.c_str(), &info) != 0) {
      if (errno == ENOTCONN) {
        throw Error::system(errno, name)
            .hint("The mount of a program that has died is there; clear it with: fusermount3 -u " +
                  name);
      }
      if (errno != ENOENT) throw Error::system(errno, name);
      const int fd = folder ? ::mkdir(name.c_str(), 0700)
                            : ::open(name.c_str(), O_CREAT | O_EXCL | O_CLOEXEC | O_WRONLY, 0600);
      if (fd < 0) throw Error::system(errno, "Could not create '" + name + "'");
      if (!folder) ::close(fd);
      made_ = true;
    }
    char resolved[PATH_MAX];
    if (::realpath(name.c_str(), resolved) == nullptr) throw Error::system(errno, name);
    path_ = resolved;
    if (made_) return;
    if (::stat(resolved, &info) != 0) throw Error::system(errno, name);
    if (folder && !S_ISDIR(info.st_mode))
      throw Error(ErrorKind::kInvalid, "'" + name + "' is not a directory")
          .hint("With --partitions the mount point is a directory, otherwise a file.");
    if (!folder && !S_ISREG(info.st_mode))
      throw Error(ErrorKind::kInvalid, "'" + name + "' is not a regular file")
          .hint("With --partitions the mount point is a directory, otherwise a file.");
  }
  MountPoint(const MountPoint&) = delete;
  ~MountPoint() {
    struct stat info = {};
    if (!made_ || ::lstat(path_.c_str(), &info) != 0) return;
    if (folder_)
      ::rmdir(path_.c_str());
    else if (S_ISREG(info.st_mode) && info.st_size == 0)
      ::unlink(path_.c_str());
  }
  const std::string& path() const { return path_; }

 private:
  bool folder_;
  bool made_ = false;
  std::string path_;
};

// --fork: the child does the work; the parent waits until it is mounted, or passes on how it
// failed.
class Background {
 public:
  // In the parent this ends the program. Before any thread is started.
  void start() {
    int pipe[2];
    if (::pipe2(pipe, O_CLOEXEC) != 0) throw Error::system(errno, "pipe");
    finish_output();
    const pid_t child = ::fork();
    if (child < 0) throw Error::system(errno, "fork");
    if (child > 0) {
      ::close(pipe[1]);
      char ready = 0;
      while (::read(pipe[0], &ready, 1) < 0 && errno == EINTR) {
      }
      // What failed has been said by the child.
      ::_exit(ready == 1 ? 0 : 1);
    }
    ::close(pipe[0]);
    report_ = pipe[1];
    ::setsid();
  }
  bool started() const { return report_ >= 0; }
  // From now on nobody reads what is printed.
  void ready() {
    finish_output();
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    for (const int fd : {0, 1, 2}) ::dup2(null, fd);
    if (null > 2) ::close(null);
    if (::chdir("/") != 0) throw Error::system(errno, "/");
    const char one = 1;
    [[maybe_unused]] const ssize_t written = ::write(report_, &one, 1);
    ::close(report_);
    detached_ = true;
  }
  bool detached() const { return detached_; }

 private:
  int report_ = -1;
  bool detached_ = false;
};

void choose_partitions(Session& session, const PartitionTable& table, MountWanted& wanted) {
  for (const std::string& warning : table.warnings) session.warning(warning);
  for (const Partition& partition : table.partitions)
    wanted.fuse.files.push_back({.name = "p" + std::to_string(partition.number),
                                 .offset = partition.offset,
                                 .length = partition.length});
}

void report(const Session& session, const Node& node, const MountWanted& wanted,
            const PartitionTable& table) {
  Value out = Value::object();
  out.set("filename", wanted.fuse.source);
  out.set("mount-point", wanted.fuse.mount_point);
  out.set("virtual-size", node.length());
  out.set("writable", wanted.fuse.writable);
  out.set("pid", int64_t{::getpid()});
  if (wanted.partitions) {
    out.set("partition-table", table.scheme);
    Value partitions = Value::array();
    for (const Partition& partition : table.partitions) {
      Value one = Value::object();
      one.set("file", "p" + std::to_string(partition.number));
      one.set("offset", partition.offset);
      one.set("length", partition.length);
      one.set("type", partition.type);
      one.set("name", partition.name);
      partitions.push_back(std::move(one));
    }
    out.set("partitions", std::move(partitions));
  }
  print_report(session, out);
}

void announce(const Session& session, const Node& node, const MountWanted& wanted,
              const PartitionTable& table, const std::string& shown) {
  if (session.json) return report(session, node, wanted, table);
  if (wanted.quiet) return;
  print("'" + wanted.fuse.source + "' is mounted on '" + shown + "' (" + human_size(node.length()) +
        (wanted.fuse.writable ? ", writable" : ", read-only") + ")\n");
  if (wanted.partitions) {
    print("  disk    " + human_size(node.length()) + ", " + std::string(table.scheme) + "\n");
    for (const Partition& partition : table.partitions) {
      std::string name = "p" + std::to_string(partition.number);
      name.resize(8, ' ');
      print("  " + name + human_size(partition.length) + ", " + partition.type +
            (partition.name.empty() ? "" : ", \"" + partition.name + "\"") + "\n");
    }
  }
  print("Unmount with Ctrl-C or: cairn umount '" + shown + "'\n");
  finish_output();
}

Task<void> mount_image(Session& session, OpenRequest request, MountWanted wanted,
                       std::string target, Background& background) {
  NodePtr node;
  if (wanted.snapshot)
    node = co_await open_with_snapshot_overlay(session.context, std::move(request));
  else
    node = co_await open_node(session.context, std::move(request));
  std::exception_ptr error;
  try {
    const MountPoint point(target, wanted.partitions);
    wanted.fuse.mount_point = point.path();
    PartitionTable table;
    if (wanted.partitions) {
      table = co_await read_partitions(*node);
      choose_partitions(session, table, wanted);
      if (wanted.fuse.files.empty())
        throw Error(ErrorKind::kInvalid, "The partition table has no partitions")
            .hint("The whole disk can be mounted on a file, without --partitions.");
    }
    FuseMount mount(session.context, node, wanted.fuse);
    mount.mount();
    announce(session, *node, wanted, table, target);
    if (background.started()) background.ready();
    take_time_to_end();
    co_await mount.serve(session.cancel, [&session] {
      session.warning(
          "the mount is still in use: the image stays open until its last user has closed it");
    });
  } catch (...) {
    error = std::current_exception();
  }
  std::vector<NodePtr> nodes(1, node);
  co_await close_all(std::move(nodes), error);
}

int run_mount(Session& session, Arguments& arguments) {
  const auto& words = arguments.words();
  if (words.size() != 2)
    throw UsageError{words.size() < 2 ? "Expecting an image and where to mount it"
                                      : "Expecting one image and one mount point"};
  if (add_objects(session, arguments)) return 0;
  check_format_flags(session, arguments);
  MountWanted wanted;
  wanted.partitions = arguments.has(kPartitions);
  wanted.quiet = arguments.has('q');
  wanted.fuse.source = words[0];
  wanted.snapshot = arguments.has(kSnapshot);
  wanted.fuse.writable = wanted.snapshot || arguments.has('w');
  wanted.fuse.growable = arguments.has(kGrowable);
  wanted.fuse.allow_other = arguments.has(kAllowOther);
  if (wanted.fuse.growable && !wanted.fuse.writable) fail(session, "--growable needs --writable");
  if (wanted.fuse.growable && wanted.partitions)
    fail(session, "--growable and --partitions cannot be used at the same time");
  OpenRequest request = image_request(session, arguments, words[0], arguments.value('f'));
  request.flags.writable = wanted.fuse.writable;
  request.flags.resize = wanted.fuse.growable;
  request.flags.discard_unmap = true;
  request.flags.cache =
      cache_mode(session, arguments.value_or('t', "writeback"), "Invalid cache option");
  Background background;
  if (arguments.has(kFork)) background.start();
  try {
    run(session, mount_image(session, std::move(request), wanted, words[1], background));
  } catch (const Error& error) {
    // Nobody reads the standard error of a program in the background.
    if (background.detached()) ::syslog(LOG_DAEMON | LOG_ERR, "cairn: %s", error.what());
    throw;
  }
  return 0;
}
}  // namespace

Verb mount_verb() {
  return {.name = "mount",
          .summary = "shows a disk, or its partitions, as plain files",
          .synopsis =
              "[--object DEF] [--image-opts] [-w] [--growable] [--snapshot] [--partitions] "
              "[--allow-other] [--fork] [-q] [-t CACHE] [-f FMT] [-U] IMAGE FILE",
          .flags = {{'w', "writable", nullptr, "allow writes"},
                    {kGrowable, "growable", nullptr, "a write past the end makes the disk larger"},
                    {kSnapshot, "snapshot", nullptr, "discard all writes at the end; implies -w"},
                    {kPartitions, "partitions", nullptr,
                     "FILE is a directory that shows a file for each partition"},
                    {kAllowOther, "allow-other", nullptr, "allow access by other users"},
                    {kFork, "fork", nullptr, "continue in the background once mounted"},
                    {'t', "cache", "MODE", "cache mode of the image (writeback)"},
                    kQuietFlag,
                    kFormatFlag,
                    kForceShareFlag,
                    kImageOptsFlag,
                    kObjectFlag},
          .run = run_mount,
          .own = true};
}

}  // namespace cairn::cli
