#include <algorithm>
#include <cerrno>

#include "async/runtime.h"
#include "block/context.h"
#include "block/driver.h"
#include "block/fixed_storage.h"
#include "block/open.h"
#include "platform/device.h"
#include "protocol/file/cdrom.h"
#include "protocol/file/file_node.h"
#include "protocol/file/open_file.h"

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

// Of block devices and CD-ROM drives.
const OptionSchema kDeviceOpenOptions = [] {
  OptionSchema schema = kOpenOptions;
  schema.push_back({.name = "exclusive",
                    .type = OptionType::kBool,
                    .default_text = "",
                    .help = "refuse block devices that are mounted or otherwise in use; on for "
                            "writing",
                    .extension = true});
  return schema;
}();

const OptionSchema kDeviceCreateOptions = {
    {"size", OptionType::kSize, "", "Virtual disk size"},
    {"preallocation", OptionType::kString, "", "Preallocation mode (allowed values: off)"},
};

const OptionSchema kCreateOptions = {
    {"size", OptionType::kSize, "", "Virtual disk size"},
    {"nocow", OptionType::kBool, "", "Turn off copy-on-write (valid only on btrfs)"},
    {"preallocation", OptionType::kString, "",
     "Preallocation mode (allowed values: off, falloc, full)"},
    {"extent_size_hint", OptionType::kSize, "",
     "Extent size hint for the image file, 0 to disable"},
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

std::string_view title_of(FileKind kind) {
  switch (kind) {
    case FileKind::kRegular:
      return "regular files";
    case FileKind::kDevice:
      return "block and character devices of the host";
    case FileKind::kCdrom:
      return "CD-ROM drives of the host";
  }
  return {};
}

DriverTraits traits_of(FileKind kind) {
  const bool regular = kind == FileKind::kRegular;
  return {.name = name_of(kind),
          .title = title_of(kind),
          .kind = DriverKind::kProtocol,
          .prefixes = {name_of(kind)},
          .abilities = {.create = true, .resize = regular},
          .capabilities = FileNode::Capabilities::ids(),
          .verbatim = true,
          .fixed_size = !regular,
          .open_options = regular ? kOpenOptions : kDeviceOpenOptions,
          .create_options = regular ? kCreateOptions : kDeviceCreateOptions};
}

class FileDriver : public Driver {
 public:
  explicit FileDriver(FileKind kind) : Driver(traits_of(kind)), kind_(kind) {}

  bool shapes_disk(std::string_view option) const override { return option == "filename"; }
  // What is left of a name without its prefix is a path, and stays one where it has a colon.
  void parse_filename(std::string_view filename, Options& options) const override {
    Driver::parse_filename(filename, options);
    const std::string path = *options.string("filename");
    if (path.size() != filename.size() && has_protocol_prefix(path))
      options.set("filename", "./" + path);
  }

  int probe_device(const std::string& path) const override {
    const auto status = platform::status(path);
    switch (kind_) {
      case FileKind::kRegular:
        return 0;
      case FileKind::kDevice:
        return status && status->is_device() ? 90 : path.starts_with("/dev/cdrom") ? 50 : 0;
      case FileKind::kCdrom:
        // Character devices are not asked: some do things when they are opened.
        return status && status->type == platform::FileType::kBlockDevice && is_cdrom_drive(path)
                   ? 100
                   : 0;
    }
    return 0;
  }

  Task<NodePtr> open(OpenContext& request) const override {
    const std::string path = request.options.string("filename").value_or("");
    if (path.empty())
      throw Error(ErrorKind::kInvalid,
                  "The '" + std::string(name()) + "' block driver requires a file name");
    check_aio(request.options, request.flags.cache.direct);
    const Locking locking = locking_of(request.options);
    const bool drop_cache = request.options.boolean("drop-cache").value_or(true);
    request.options.boolean("x-check-cache-dropped");
    OpenMode mode{.writable = request.flags.writable, .direct = request.flags.cache.direct};
    if (kind_ != FileKind::kRegular)
      mode.exclusive = request.options.boolean("exclusive")
                           .value_or(mode.writable && request.context.profile.claim_devices);
    OwnFd fd;
    if (kind_ == FileKind::kRegular)
      fd = open_file(kind_, path, mode);
    else
      fd = co_await run_blocking([&] { return open_file(kind_, path, mode); });
    std::shared_ptr<FileNode> node;
    if (kind_ == FileKind::kCdrom)
      node = co_await open_cdrom(request, path, mode, std::move(fd));
    else
      node = std::make_shared<FileNode>(request.context, *this, path, fd.release(), kind_);
    node->lock(request.permissions, locking);
    node->inspect(mode.direct);
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
    if (kind_ != FileKind::kRegular) {
      const uint64_t size = request.size;
      const bool claim = context.profile.claim_devices;
      co_await run_blocking([&] { check_device(context, path, size, mode, claim); });
      co_return;
    }
    check_name(path, "create");
    const auto status = platform::status(path);
    if (status && status->is_directory())
      throw Error::system(EISDIR, "Could not create '" + path + "'");
    if (status && !status->is_regular())
      throw Error(ErrorKind::kInvalid,
                  "'file' driver requires '" + path + "' to be a regular file");
    const OwnFd file(platform::open(path, O_RDWR | O_CREAT));
    const int fd = file.get();
    if (!file) throw Error::system(errno, "Could not create '" + path + "'");
    ImageLocks locks(fd, path, Locking::kAuto);
    locks.change(
        {.used = Permissions::kWrite | Permissions::kResize, .unshared = Permissions::kResize});
    const uint64_t size = request.size;
    co_await run_blocking([&] {
      if (platform::set_length(fd, 0) != 0)
        throw Error::system(errno, "Could not clear '" + path + "'");
      set_attributes(context, fd, nocow, hint);
      resize_file(fd, 0, size, mode, context);
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

  // A device cannot be made: it must be there and large enough.
  void check_device(const Context& context, const std::string& path, uint64_t size,
                    Preallocation mode, bool claim) const {
    if (mode != Preallocation::kOff)
      throw Error(ErrorKind::kUnsupported,
                  "Unsupported preallocation mode '" + std::string(to_string(mode)) + "'");
    OwnFd fd;
    try {
      fd = open_file(kind_, path, {.writable = true, .direct = false, .exclusive = claim});
    } catch (Error& error) {
      if (!claim)
        error.context("Protocol driver '" + std::string(name()) +
                      "' does not support creating new images, so an existing image must be "
                      "selected as the target; however, opening the given target as an existing "
                      "image failed");
      throw;
    }
    if (kind_ == FileKind::kCdrom) {
      const auto drive_status = make_host_cdrom_drive(fd.get())->status();
      if (drive_status != CdromDrive::Status::kReady)
        throw no_medium(drive_status, "No medium inserted");
    }
    const uint64_t length = platform::end_of(fd.get()).value_or(0);
    if (length < size)
      throw too_small(context, ErrorKind::kInvalid, "Cannot grow device files", length, size);
  }

  // FD was opened without waiting for a medium.
  Task<std::shared_ptr<FileNode>> open_cdrom(OpenContext& request, std::string path, OpenMode mode,
                                             OwnFd fd) const {
    const auto status =
        co_await run_blocking([&] { return make_host_cdrom_drive(fd.get())->status(); });
    const bool ready = status == CdromDrive::Status::kReady;
    if (ready) {
      // Opened with a medium the kernel keeps the tray shut, until the last descriptor is closed.
      mode.medium = true;
      OwnFd shut = co_await run_blocking([&] { return open_file(kind_, path, mode); });
      fd = std::move(shut);
    } else if (request.context.profile.need_medium) {
      if (!request.flags.metadata_only)
        throw no_medium(status).context("Could not open '" + path + "'");
      request.context.warn("no medium in the drive '" + path + "'");
    }
    auto drive = make_host_cdrom_drive(fd.get());
    co_return std::make_shared<CdromNode>(request.context, *this, std::move(path), fd.release(),
                                          std::move(drive));
  }

  static void set_attributes(Context& context, int fd, bool nocow, std::optional<uint64_t> hint) {
    // Only btrfs knows the attribute; elsewhere the wish has no meaning.
    if (nocow) platform::set_no_copy_on_write(fd);
    const uint64_t bytes = hint.value_or(1 << 20);
    if (bytes == 0) return;
    if (platform::set_extent_size_hint(fd, static_cast<uint32_t>(bytes)) != 0 && hint)
      context.warn("Failed to set extent size hint: " + Error::system(errno).message());
  }

  // A written first block lets direct I/O probe its alignment.
  static void write_first_block(int fd, uint64_t size) {
    static const std::byte zeroes[4096] = {};
    const size_t part = size < sizeof zeroes ? 512 : sizeof zeroes;
    if (platform::write_at(fd, zeroes, std::min<uint64_t>(part, size), 0) < 0)
      throw Error::system(errno, "Could not write the first block");
  }

  FileKind kind_;
};

}  // namespace

std::unique_ptr<Driver> make_file_driver() {
  return std::make_unique<FileDriver>(FileKind::kRegular);
}
std::unique_ptr<Driver> make_host_device_driver() {
  return std::make_unique<FileDriver>(FileKind::kDevice);
}
std::unique_ptr<Driver> make_host_cdrom_driver() {
  return std::make_unique<FileDriver>(FileKind::kCdrom);
}

}  // namespace cairn
