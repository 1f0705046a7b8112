#include "operation/mount.h"

#include <fcntl.h>
#include <syslog.h>
#include <unistd.h>

#include <cerrno>

#include "base/size.h"
#include "cli/report.h"
#include "cli/signals.h"
#include "cli/verbs.h"

namespace cairn::cli {
namespace {

enum MountId : int { kGrowable = kFirstOwn, kPartitions, kAllowOther, kFork, kSnapshot };

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

void report(const Session& session, const operation::Mounted& mounted, bool partitions_wanted) {
  const FuseOptions& fuse = mounted.fuse;
  const PartitionTable& table = mounted.table;
  Value out = Value::object();
  out.set("filename", fuse.source);
  out.set("mount-point", fuse.mount_point);
  out.set("virtual-size", mounted.bytes);
  out.set("writable", fuse.writable);
  out.set("pid", int64_t{::getpid()});
  if (partitions_wanted) {
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

void announce(const operation::Mounted& mounted, bool partitions, const std::string& shown) {
  const FuseOptions& fuse = mounted.fuse;
  const PartitionTable& table = mounted.table;
  print("'" + fuse.source + "' is mounted on '" + shown + "' (" + human_size(mounted.bytes) +
        (fuse.writable ? ", writable" : ", read-only") + ")\n");
  if (partitions) {
    print("  disk    " + human_size(mounted.bytes) + ", " + std::string(table.scheme) + "\n");
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

int run_mount(Session& session, Arguments& arguments) {
  const auto& words = arguments.words();
  if (words.size() != 2)
    throw UsageError{words.size() < 2 ? "Expecting an image and where to mount it"
                                      : "Expecting one image and one mount point"};
  if (add_objects(session, arguments)) return 0;
  check_format_flags(session, arguments);
  operation::MountOptions wanted;
  wanted.partitions = arguments.has(kPartitions);
  wanted.target = words[1];
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
    const auto ready = [&](const operation::Mounted& mounted) {
      if (session.json)
        report(session, mounted, arguments.has(kPartitions));
      else if (!arguments.has('q'))
        announce(mounted, arguments.has(kPartitions), words[1]);
      if (background.started()) background.ready();
      take_time_while_servers_answer();
    };
    run(session, operation::mount(session.caller(), std::move(request), wanted, ready));
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
          .own_flags = {kDiskFlag},
          .run = run_mount,
          .own = true};
}

}  // namespace cairn::cli
