#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "async/runtime.h"
#include "block/context.h"
#include "block/open.h"
#include "protocol/file/file.h"
#include "protocol/file/file_node.h"

namespace cairn {
namespace {

const OptionSchema kOpenOptions = {
    {"filename", OptionType::kString, "", "path of the file or device"},
    {"aio", OptionType::kString, "threads", "threads, native or io_uring"},
    {"aio-max-batch", OptionType::kNumber, "0", "largest batch of requests, 0: automatic"},
    {"locking", OptionType::kString, "auto", "auto, on or off"},
    {"drop-cache", OptionType::kBool, "on", "drop cached pages when the image is closed"},
    {"x-check-cache-dropped", OptionType::kBool, "off", "accepted, no effect"},
};

const OptionSchema kCreateOptions = {
    {"size", OptionType::kSize, "", "Virtual disk size"},
    {"extent_size_hint", OptionType::kSize, "",
     "Extent size hint for the image file, 0 to disable"},
    {"nocow", OptionType::kBool, "", "Turn off copy-on-write (valid only on btrfs)"},
    {"preallocation", OptionType::kString, "",
     "Preallocation mode (allowed values: off, falloc, full)"},
};

Locking locking_of(const Options& options) {
  const std::string text = options.string("locking").value_or("auto");
  if (text == "auto") return Locking::kAuto;
  if (text == "on") return Locking::kOn;
  if (text == "off") return Locking::kOff;
  throw Error(ErrorKind::kInvalid, "invalid parameter value: " + text);
}

void check_aio(const Options& options, bool direct) {
  const std::string aio = options.string("aio").value_or("threads");
  options.number("aio-max-batch");
  if (aio != "threads" && aio != "native" && aio != "io_uring")
    throw Error(ErrorKind::kInvalid, "invalid parameter value: " + aio);
  if (aio == "native" && !direct)
    throw Error(ErrorKind::kInvalid,
                "aio=native was specified, but it requires cache.direct=on, which was not "
                "specified.");
}

class FileDriver : public Driver {
 public:
  explicit FileDriver(bool device) : device_(device) {}

  std::string_view name() const override { return device_ ? "host_device" : "file"; }
  bool shapes_disk(std::string_view option) const override { return option == "filename"; }
  std::string_view title() const override {
    return device_ ? "block and character devices of the host" : "regular files";
  }
  bool is_protocol() const override { return true; }
  std::vector<std::string_view> prefixes() const override { return {name()}; }
  Abilities abilities() const override {
    return {.create = true, .resize = !device_, .shared_writers = true};
  }
  const OptionSchema& open_options() const override { return kOpenOptions; }
  const OptionSchema& create_options() const override { return kCreateOptions; }

  Task<NodePtr> open(OpenContext& request) const override {
    const std::string path = request.options.string("filename").value_or("");
    if (path.empty())
      throw Error(ErrorKind::kInvalid,
                  "The '" + std::string(name()) + "' block driver requires a file name");
    check_aio(request.options, request.flags.cache.direct);
    const Locking locking = locking_of(request.options);
    const bool drop_cache = request.options.boolean("drop-cache").value_or(true);
    request.options.boolean("x-check-cache-dropped");
    // Looked at before it is opened: a FIFO would block.
    struct stat status = {};
    if (::stat(path.c_str(), &status) != 0)
      throw Error::system(errno, "Could not open '" + path + "'");
    if (!device_ && !S_ISREG(status.st_mode))
      throw Error(ErrorKind::kInvalid,
                  "'file' driver requires '" + path + "' to be a regular file");
    if (device_ && !S_ISBLK(status.st_mode) && !S_ISCHR(status.st_mode))
      throw Error(ErrorKind::kInvalid, "'host_device' driver requires '" + path +
                                           "' to be either a character or block device");
    const int access = request.flags.writable ? O_RDWR : O_RDONLY;
    const int direct = request.flags.cache.direct ? O_DIRECT : 0;
    const int fd = ::open(path.c_str(), access | direct | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
      const int error = errno;
      if (error == EINVAL && direct != 0)
        throw Error(ErrorKind::kInvalid,
                    "Could not open '" + path + "': filesystem does not support O_DIRECT");
      throw Error::system(error == EROFS ? EACCES : error, "Could not open '" + path + "'");
    }
    auto node = std::make_shared<FileNode>(request.context, *this, path, fd, device_);
    int read_only = 0;
    if (device_ && request.flags.writable && ::ioctl(fd, BLKROGET, &read_only) == 0 &&
        read_only != 0)
      throw Error::system(EACCES, "The device is not writable");
    node->lock(request.permissions, locking);
    node->inspect(request.flags.cache.direct);
    node->set_drop_cache(drop_cache);
    co_return node;
  }

  Task<void> create(Context& context, CreateRequest request) const override {
    const std::string& path = request.filename;
    const Preallocation mode = preallocation_of(request.options);
    const auto hint = request.options.size("extent_size_hint");
    const bool nocow = request.options.boolean("nocow").value_or(false);
    if (hint && *hint > UINT32_MAX)
      throw Error(ErrorKind::kInvalid, "Extent size hint is too large");
    struct stat status = {};
    const bool exists = ::stat(path.c_str(), &status) == 0;
    if (exists && (S_ISBLK(status.st_mode) || S_ISCHR(status.st_mode))) {
      check_device(path, request.size, mode);
      co_return;
    }
    if (exists && !S_ISREG(status.st_mode))
      throw Error(ErrorKind::kInvalid,
                  "'file' driver requires '" + path + "' to be a regular file");
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) throw Error::system(errno, "Could not create '" + path + "'");
    const struct Closer {
      int fd;
      ~Closer() { ::close(fd); }
    } closer{fd};
    ImageLocks locks(fd, path, Locking::kAuto);
    locks.change(
        {.used = Permissions::kWrite | Permissions::kResize, .unshared = Permissions::kResize});
    const uint64_t size = request.size;
    co_await run_blocking([&] {
      if (::ftruncate(fd, 0) != 0) throw Error::system(errno, "Could not clear '" + path + "'");
      set_attributes(context, fd, nocow, hint);
      resize_file(fd, 0, size, mode);
      if (size != 0 && mode == Preallocation::kOff) write_first_block(fd, size);
    });
  }

 private:
  static Preallocation preallocation_of(const Options& options) {
    const std::string text = options.string("preallocation").value_or("off");
    if (text == "off") return Preallocation::kOff;
    if (text == "falloc") return Preallocation::kFalloc;
    if (text == "full") return Preallocation::kFull;
    if (text == "metadata")
      throw Error(ErrorKind::kUnsupported, "Unsupported preallocation mode: metadata");
    throw Error(ErrorKind::kInvalid, "invalid parameter value: " + text);
  }

  static void check_device(const std::string& path, uint64_t size, Preallocation mode) {
    if (mode != Preallocation::kOff)
      throw Error(ErrorKind::kUnsupported,
                  "Unsupported preallocation mode '" + std::string(to_string(mode)) + "'");
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (fd < 0) throw Error::system(errno, "Could not open '" + path + "'");
    const off_t end = ::lseek(fd, 0, SEEK_END);
    ::close(fd);
    if (end < 0 || static_cast<uint64_t>(end) < size)
      throw Error(ErrorKind::kInvalid, "Cannot grow device files");
  }

  static void set_attributes(Context& context, int fd, bool nocow, std::optional<uint64_t> hint) {
    int flags = 0;
    // Only btrfs knows the attribute; elsewhere the wish has no meaning.
    if (nocow && ::ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
      flags |= FS_NOCOW_FL;
      static_cast<void>(::ioctl(fd, FS_IOC_SETFLAGS, &flags));
    }
    const uint64_t bytes = hint.value_or(1 << 20);
    struct fsxattr attributes = {};
    if (bytes == 0) return;
    int error = ::ioctl(fd, FS_IOC_FSGETXATTR, &attributes) == 0 ? 0 : errno;
    if (error == 0) {
      attributes.fsx_xflags |= FS_XFLAG_EXTSIZE;
      attributes.fsx_extsize = static_cast<uint32_t>(bytes);
      error = ::ioctl(fd, FS_IOC_FSSETXATTR, &attributes) == 0 ? 0 : errno;
    }
    if (error != 0 && hint)
      context.warn("Failed to set extent size hint: " + Error::system(error).message());
  }

  // A written first block lets direct I/O probe its alignment.
  static void write_first_block(int fd, uint64_t size) {
    static const std::byte zeroes[4096] = {};
    const size_t part = size < sizeof zeroes ? 512 : sizeof zeroes;
    if (::pwrite(fd, zeroes, std::min<uint64_t>(part, size), 0) < 0)
      throw Error::system(errno, "Could not write the first block");
  }

  bool device_;
};

}  // namespace

std::unique_ptr<Driver> make_file_driver() { return std::make_unique<FileDriver>(false); }
std::unique_ptr<Driver> make_host_device_driver() { return std::make_unique<FileDriver>(true); }

}  // namespace cairn
