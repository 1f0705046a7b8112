#include "filter/disk_cache/directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <vector>

#include "base/error.h"

namespace cairn::disk_cache {
namespace {

constexpr uint64_t kUsualBytes = uint64_t{10} << 30;
constexpr std::string_view kEnding = ".cache", kNewEnding = ".new";
// The first digits of a file's name are of the image's name, the others of its state.
constexpr size_t kNameDigits = 32;
// Files that are not complete after so long have nobody who makes them.
constexpr time_t kMakingSeconds = 60;

bool has_ending(std::string_view name, std::string_view ending) {
  return name.size() > ending.size() && name.ends_with(ending);
}

std::vector<std::string> names_in(int directory) {
  std::vector<std::string> names;
  const int fd = ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* list = fd < 0 ? nullptr : ::fdopendir(fd);
  if (list == nullptr) {
    if (fd >= 0) ::close(fd);
    return names;
  }
  while (const dirent* each = ::readdir(list)) {
    const std::string_view name = each->d_name;
    if (has_ending(name, kEnding) || has_ending(name, kNewEnding)) names.emplace_back(name);
  }
  ::closedir(list);
  return names;
}

OwnFd open_in(int directory, const std::string& name, int flags) {
  return OwnFd(
      ::openat(directory, name.c_str(), flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600));
}

// Whether the file is a plain one of our own.
bool is_ours(int fd, struct stat* status) {
  return ::fstat(fd, status) == 0 && S_ISREG(status->st_mode) && status->st_uid == ::geteuid();
}

std::optional<Header> header_of(int fd) {
  std::vector<std::byte> bytes(kHeaderBytes);
  if (::pread(fd, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    return std::nullopt;
  return Header::decode(bytes);
}

uint64_t space_of(int fd) {
  struct stat status = {};
  return ::fstat(fd, &status) == 0 ? static_cast<uint64_t>(status.st_blocks) * 512 : 0;
}

// A part of a file that can be given back.
struct Region {
  uint64_t used = 0;  // ms
  size_t file = 0;
  uint64_t number = 0;
};

struct File {
  std::string name;
  OwnFd fd;
  Header header;
  uint64_t regions = 0;  // that hold something
};

// Removes the file unless a process has it open. FD is open for it.
bool remove_idle(int directory, const std::string& name, int fd) {
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) return false;
  return ::unlinkat(directory, name.c_str(), 0) == 0;
}

// The files of the directory, and in REGIONS what they hold; what is no file of a cache any more
// goes. Gives the bytes that they take.
uint64_t take_stock(int directory, std::vector<File>* files, std::vector<Region>* regions) {
  uint64_t total = 0;
  for (const std::string& name : names_in(directory)) {
    OwnFd fd = open_in(directory, name, O_RDWR);
    struct stat status = {};
    if (!fd || !is_ours(fd.get(), &status)) continue;
    // One that is being made has a moment for that.
    if (has_ending(name, kNewEnding) && status.st_mtime + kMakingSeconds > ::time(nullptr))
      continue;
    const auto header = header_of(fd.get());
    if (!header || static_cast<uint64_t>(status.st_size) != header->file_bytes() ||
        has_ending(name, kNewEnding)) {
      remove_idle(directory, name, fd.get());
      continue;
    }
    total += static_cast<uint64_t>(status.st_blocks) * 512;
    File file{.name = name, .fd = std::move(fd), .header = *header};
    std::vector<std::byte> times(65536);
    for (uint64_t first = 0; first < header->regions(); first += times.size() / 8) {
      const ssize_t got = ::pread(file.fd.get(), times.data(), times.size(),
                                  static_cast<off_t>(header->time_offset(first)));
      const uint64_t count = std::min<uint64_t>(got <= 0 ? 0 : static_cast<uint64_t>(got) / 8,
                                                header->regions() - first);
      if (count == 0) break;
      for (uint64_t i = 0; i < count; ++i) {
        const uint64_t used = load_le<uint64_t>(times, 8 * i);
        if (used == 0) continue;
        ++file.regions;
        regions->push_back({.used = used, .file = files->size(), .number = first + i});
      }
    }
    files->push_back(std::move(file));
  }
  return total;
}

// Gives back the region: first nobody finds it any more, then its space goes. Who reads it
// meanwhile sees that its checksum is wrong. False where the file system has no holes.
bool give_back(const File& file, uint64_t region) {
  const Header& header = file.header;
  const uint64_t first = region * kRegionClusters;
  const uint64_t count = std::min(kRegionClusters, header.clusters() - first);
  const std::vector<std::byte> zeroes(8 * count);
  const auto clear = [&](uint64_t offset, size_t bytes) {
    return ::pwrite(file.fd.get(), zeroes.data(), bytes, static_cast<off_t>(offset)) ==
           static_cast<ssize_t>(bytes);
  };
  if (!clear(header.time_offset(region), 8) || !clear(header.entry_offset(first), zeroes.size()))
    return false;
  const uint64_t begin = header.data_offset(first);
  return ::fallocate(file.fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                     static_cast<off_t>(begin),
                     static_cast<off_t>(count << header.cluster_bits)) == 0;
}

}  // namespace

uint64_t now_ms() {
  using namespace std::chrono;
  return static_cast<uint64_t>(
      duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count());
}

Directory::Directory(std::string path, std::optional<uint64_t> size) : path_(std::move(path)) {
  if (::mkdir(path_.c_str(), 0700) != 0 && errno != EEXIST)
    throw Error::system(errno, "the cache directory '" + path_ + "' cannot be made");
  fd_ = OwnFd(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  struct stat status = {};
  if (!fd_ || ::fstat(fd_.get(), &status) != 0)
    throw Error::system(errno, "the cache directory '" + path_ + "' cannot be opened");
  if (status.st_uid != ::geteuid() || (status.st_mode & 022) != 0)
    throw Error(ErrorKind::kDenied,
                "The cache directory '" + path_ +
                    (status.st_uid != ::geteuid() ? "' belongs to somebody else"
                                                  : "' can be written to by others"))
        .hint(
            "Others could put their bytes into your disks. Use a directory of your own, with "
            "`chmod 700`.");
  struct statvfs space = {};
  uint64_t usual = kUsualBytes;
  if (!size && ::fstatvfs(fd_.get(), &space) == 0) {
    std::vector<File> files;
    std::vector<Region> regions;
    const uint64_t used = take_stock(fd_.get(), &files, &regions);
    usual = std::min(usual, (uint64_t{space.f_bavail} * space.f_frsize + used) / 2);
  }
  size_ = size.value_or(usual);
}

OwnFd Directory::existing(const std::string& name, const Header& header) {
  OwnFd fd = open_in(fd_.get(), name, O_RDWR);
  struct stat status = {};
  if (!fd || !is_ours(fd.get(), &status)) return {};
  // It was opened so as not to wait for what is no file.
  ::fcntl(fd.get(), F_SETFL, 0);
  // Shared: nobody removes it while it is used. It may have been removed right before.
  if (::flock(fd.get(), LOCK_SH) != 0 || ::fstat(fd.get(), &status) != 0 || status.st_nlink == 0)
    return {};
  const auto found = header_of(fd.get());
  if (!found || found->encode() != header.encode() ||
      static_cast<uint64_t>(status.st_size) != header.file_bytes())
    return {};
  return fd;
}

// Complete before it has its name: no other process sees a part of it.
OwnFd Directory::make_file(const std::string& name, const Header& header) {
  const std::string fresh = fmt::format("{}.{}-{}{}", name, ::getpid(), now_ms(), kNewEnding);
  OwnFd fd = open_in(fd_.get(), fresh, O_RDWR | O_CREAT | O_EXCL);
  if (!fd) throw Error::system(errno, "the cache '" + path_ + "' cannot be written");
  const std::vector<std::byte> bytes = header.encode();
  errno = 0;
  const bool made =
      ::flock(fd.get(), LOCK_SH) == 0 &&
      ::ftruncate(fd.get(), static_cast<off_t>(header.file_bytes())) == 0 &&
      ::pwrite(fd.get(), bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size());
  if (made) {
    const int directory = fd_.get();
    if (::renameat2(directory, fresh.c_str(), directory, name.c_str(), RENAME_NOREPLACE) == 0)
      return fd;
    // Another process may have been faster, or there is a damaged one.
    OwnFd other = existing(name, header);
    if (other) {
      ::unlinkat(directory, fresh.c_str(), 0);
      return other;
    }
    errno = 0;
    if (::renameat(directory, fresh.c_str(), directory, name.c_str()) == 0) return fd;
  }
  const int error = errno == 0 ? ENOSPC : errno;
  ::unlinkat(fd_.get(), fresh.c_str(), 0);
  throw Error::system(error, "the cache '" + path_ + "' cannot be written");
}

void Directory::remove_other_states(const std::string& name) {
  for (const std::string& other : names_in(fd_.get())) {
    if (other == name || !has_ending(other, kEnding) ||
        other.compare(0, kNameDigits, name, 0, kNameDigits) != 0)
      continue;
    const OwnFd fd = open_in(fd_.get(), other, O_RDWR);
    if (fd) remove_idle(fd_.get(), other, fd.get());
  }
}

OwnFd Directory::open_file(const Header& header) {
  const std::string name = header.key + std::string(kEnding);
  OwnFd fd = existing(name, header);
  if (!fd) fd = make_file(name, header);
  remove_other_states(name);
  trim();
  return fd;
}

uint64_t Directory::step() const { return std::clamp<uint64_t>(size_ / 16, 1 << 20, 64 << 20); }

bool Directory::due(uint64_t bytes) {
  if (added_.fetch_add(bytes, std::memory_order_relaxed) + bytes < step()) return false;
  added_.store(0, std::memory_order_relaxed);
  return true;
}

// Who finds another thread at it leaves the work to that one.
void Directory::trim() {
  wanted_.store(true);
  while (wanted_.load()) {
    const std::unique_lock lock(trimming_, std::try_to_lock);
    if (!lock.owns_lock()) return;
    if (wanted_.exchange(false)) trim_once();
  }
}

void Directory::trim_once() {
  std::vector<File> files;
  std::vector<Region> regions;
  uint64_t total = take_stock(fd_.get(), &files, &regions);
  // Room for what is added until the next look.
  const uint64_t most = size_ - std::min(step(), size_ / 2);
  if (total <= most) return;
  std::sort(regions.begin(), regions.end(),
            [](const Region& a, const Region& b) { return a.used < b.used; });
  for (const Region& region : regions) {
    if (total <= most) break;
    File& file = files[region.file];
    const uint64_t before = space_of(file.fd.get());
    if (!give_back(file, region.number)) {
      // Without holes whole files go. Who uses one keeps it until the end.
      if (::unlinkat(fd_.get(), file.name.c_str(), 0) == 0) total -= std::min(total, before);
      continue;
    }
    const uint64_t after = space_of(file.fd.get());
    total -= std::min(total, before - std::min(before, after));
    if (--file.regions == 0) remove_idle(fd_.get(), file.name, file.fd.get());
  }
}

}  // namespace cairn::disk_cache
