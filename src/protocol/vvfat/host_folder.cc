#include "protocol/vvfat/host_folder.h"

#include <fmt/core.h>

#include <cerrno>

#include "base/error.h"
#include "platform/folder.h"

namespace cairn::vvfat {

HostFolder::HostFolder(std::string path)
    : path_(std::move(path)), fd_(platform::open_folder(path_)) {
  if (!fd_)
    throw Error(kind_of(errno), "Could not read directory " + path_)
        .hint(fmt::format("{}: {}.", path_, Error::system(errno).cause()));
  if (const OwnFd probe = open("", O_PATH, Links::kRefuse); !probe)
    throw Error::system(errno,
                        "a directory is shown as a disk only where the kernel has openat2 "
                        "(Linux 5.6)");
}

std::string HostFolder::full_path(const std::string& relative) const {
  if (relative.empty()) return path_;
  return path_.ends_with('/') ? path_ + relative : path_ + "/" + relative;
}

OwnFd HostFolder::open(const std::string& relative, int flags, Links links, unsigned mode) const {
  return OwnFd(platform::open_below(fd_.get(), relative, flags, links, mode));
}

void HostFolder::lock() const {
  // Where directories cannot be locked no other process can be kept out.
  if (platform::lock_folder(fd_.get(), platform::Sharing::kExclusive) != 0 && errno == EAGAIN)
    throw Error(ErrorKind::kLocked, path_ + " is shown as a disk that can be written already");
}

std::pair<OwnFd, std::string> HostFolder::place_of(const std::string& relative) const {
  const size_t slash = relative.rfind('/');
  const bool deep = slash != std::string::npos;
  OwnFd above = open(deep ? relative.substr(0, slash) : "", O_PATH | O_DIRECTORY, Links::kRefuse);
  if (!above) throw Error::system(errno, full_path(relative));
  return {std::move(above), deep ? relative.substr(slash + 1) : relative};
}

void HostFolder::make_folder(const std::string& relative, unsigned mode) const {
  const auto [above, name] = place_of(relative);
  if (platform::make_directory_in(above.get(), name, mode) != 0)
    throw Error::system(errno, "Could not create the directory " + full_path(relative));
}

void HostFolder::move(const std::string& from, const std::string& to) const {
  const auto [old_above, old_name] = place_of(from);
  const auto [above, name] = place_of(to);
  if (platform::rename_in(old_above.get(), old_name, above.get(), name, platform::Overwrite::kNo) !=
      0)
    throw Error::system(errno,
                        fmt::format("Could not move {} to {}", full_path(from), full_path(to)));
}

std::optional<platform::FileStatus> HostFolder::look_at(const std::string& relative) const {
  const auto found = platform::status_below(fd_.get(), relative, Links::kRefuse);
  if (!found && errno != ENOENT && errno != ENOTDIR)
    throw Error::system(errno, full_path(relative));
  return found;
}

std::vector<std::string> HostFolder::names_in(const std::string& relative, Links links,
                                              size_t most) const {
  const OwnFd fd = open(relative, O_RDONLY | O_DIRECTORY | O_NONBLOCK, links);
  const std::string what = "Could not read directory " + full_path(relative);
  if (!fd)
    throw Error(kind_of(errno), what)
        .hint("The system says: " + Error::system(errno).cause() + ".");
  auto names = platform::names_in(fd.get(), most);
  if (!names) throw Error::system(errno, what);
  if (names->size() > most)
    throw Error(ErrorKind::kTooLarge, what).hint(fmt::format("It holds more than {} files.", most));
  return std::move(*names);
}

void HostFolder::remove(const std::string& relative) const {
  const auto [above, name] = place_of(relative);
  if (platform::remove_in(above.get(), name) == 0 || errno == ENOENT) return;
  if (errno != EISDIR && errno != EPERM)
    throw Error::system(errno, "Could not remove " + full_path(relative));
  for (const std::string& inner : names_in(relative, Links::kRefuse, SIZE_MAX))
    remove(relative + "/" + inner);
  if (platform::remove_directory_in(above.get(), name) != 0)
    throw Error::system(errno, "Could not remove " + full_path(relative));
}

void HostFolder::set_written(const std::string& relative, int64_t seconds) const {
  const auto [above, name] = place_of(relative);
  if (platform::set_modified_in(above.get(), name, seconds) != 0)
    throw Error::system(errno, "Could not set the time of " + full_path(relative));
}

void HostFolder::copy_rights(const std::string& relative, int fd) const {
  if (!look_at(relative)) return;
  const auto [above, name] = place_of(relative);
  if (platform::copy_rights(above.get(), name, fd) != 0 && errno != ENOENT)
    throw Error::system(errno, full_path(relative));
}

void HostFolder::flush() const {
  if (platform::sync_volume(fd_.get()) != 0) throw Error::system(errno, path_);
}

}  // namespace cairn::vvfat
