#include "filter/disk_cache/directory.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <vector>

#include "base/error.h"
#include "platform/directory.h"
#include "platform/folder.h"
#include "platform/lock.h"
#include "platform/system.h"

namespace cairn::disk_cache {

using platform::FileStatus;
using platform::Overwrite;
using platform::Rights;

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
  auto names = platform::names_in(directory, SIZE_MAX - 1).value_or(std::vector<std::string>());
  std::erase_if(names, [](const std::string& name) {
    return !has_ending(name, kEnding) && !has_ending(name, kNewEnding);
  });
  return names;
}

OwnFd open_in(int directory, const std::string& name, int flags) {
  return OwnFd(platform::open_in(directory, name, flags | O_NONBLOCK));
}

// What the system says of a plain file of our own; nothing for others.
std::optional<FileStatus> status_of_ours(const OwnFd& fd) {
  auto status = fd ? platform::status_of(fd.get()) : std::nullopt;
  if (!status || !status->is_regular()) return std::nullopt;
  const auto rights = platform::rights_of(fd.get());
  if (!rights || *rights == Rights::kOfOthers) return std::nullopt;
  return status;
}

std::optional<Header> header_of(int fd) {
  std::vector<std::byte> bytes(kHeaderBytes);
  if (platform::read_at(fd, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    return std::nullopt;
  return Header::decode(bytes);
}

uint64_t space_of(int fd) {
  const auto status = platform::status_of(fd);
  return status ? status->allocated : 0;
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
  return platform::lock_file(fd) == 0 && platform::remove_in(directory, name) == 0;
}

// The files of the directory, and in REGIONS what they hold; what is no file of a cache any more
// goes. Gives the bytes that they take.
uint64_t take_stock(int directory, std::vector<File>* files, std::vector<Region>* regions) {
  uint64_t total = 0;
  for (const std::string& name : names_in(directory)) {
    OwnFd fd = open_in(directory, name, O_RDWR);
    const auto status = status_of_ours(fd);
    if (!status) continue;
    // One that is being made has a moment for that.
    if (has_ending(name, kNewEnding) && status->modified + kMakingSeconds > ::time(nullptr))
      continue;
    const auto header = header_of(fd.get());
    if (!header || status->size != header->file_bytes() || has_ending(name, kNewEnding)) {
      remove_idle(directory, name, fd.get());
      continue;
    }
    total += status->allocated;
    File file{.name = name, .fd = std::move(fd), .header = *header};
    std::vector<std::byte> times(65536);
    for (uint64_t first = 0; first < header->regions(); first += times.size() / 8) {
      const ssize_t got =
          platform::read_at(file.fd.get(), times.data(), times.size(), header->time_offset(first));
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
    return platform::write_at(file.fd.get(), zeroes.data(), bytes, offset) ==
           static_cast<ssize_t>(bytes);
  };
  if (!clear(header.time_offset(region), 8) || !clear(header.entry_offset(first), zeroes.size()))
    return false;
  const uint64_t begin = header.data_offset(first);
  return platform::allocate(file.fd.get(), platform::Allocation::kPunch, begin,
                            count << header.cluster_bits) == 0;
}

}  // namespace

uint64_t now_ms() {
  using namespace std::chrono;
  return static_cast<uint64_t>(
      duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count());
}

Directory::Directory(std::string path, std::optional<uint64_t> size) : path_(std::move(path)) {
  if (platform::make_directory(path_, 0700) != 0 && errno != EEXIST)
    throw Error::system(errno, "the cache directory '" + path_ + "' cannot be made");
  fd_ = OwnFd(platform::open_folder(path_));
  const auto rights = fd_ ? platform::rights_of(fd_.get()) : std::nullopt;
  if (!rights) throw Error::system(errno, "the cache directory '" + path_ + "' cannot be opened");
  if (*rights != Rights::kOwn)
    throw Error(ErrorKind::kDenied,
                "The cache directory '" + path_ +
                    (*rights == Rights::kOfOthers ? "' belongs to somebody else"
                                                  : "' can be written to by others"))
        .hint(
            "Others could put their bytes into your disks. Use a directory of your own, with "
            "`chmod 700`.");
  uint64_t usual = kUsualBytes;
  const auto left = size ? std::nullopt : platform::bytes_for_user(path_);
  if (left) {
    std::vector<File> files;
    std::vector<Region> regions;
    usual = std::min(usual, (*left + take_stock(fd_.get(), &files, &regions)) / 2);
  }
  size_ = size.value_or(usual);
}

OwnFd Directory::existing(const std::string& name, const Header& header) {
  OwnFd fd = open_in(fd_.get(), name, O_RDWR);
  if (!status_of_ours(fd)) return {};
  // It was opened so as not to wait for what is no file.
  platform::set_blocking(fd.get());
  // Shared: nobody removes it while it is used. It may have been removed right before.
  if (platform::lock_file_shared(fd.get()) != 0) return {};
  const auto status = platform::status_of(fd.get());
  if (!status || status->links == 0) return {};
  const auto found = header_of(fd.get());
  if (!found || found->encode() != header.encode() || status->size != header.file_bytes())
    return {};
  return fd;
}

// Complete before it has its name: no other process sees a part of it.
OwnFd Directory::make_file(const std::string& name, const Header& header) {
  const std::string fresh =
      fmt::format("{}.{}-{}{}", name, platform::process_number(), now_ms(), kNewEnding);
  OwnFd fd = open_in(fd_.get(), fresh, O_RDWR | O_CREAT | O_EXCL);
  if (!fd) throw Error::system(errno, "the cache '" + path_ + "' cannot be written");
  const std::vector<std::byte> bytes = header.encode();
  errno = 0;
  const bool made = platform::lock_file_shared(fd.get()) == 0 &&
                    platform::set_length(fd.get(), header.file_bytes()) == 0 &&
                    platform::write_at(fd.get(), bytes.data(), bytes.size(), 0) ==
                        static_cast<ssize_t>(bytes.size());
  if (made) {
    const int directory = fd_.get();
    if (platform::rename_in(directory, fresh, directory, name, Overwrite::kNo) == 0) return fd;
    // Another process may have been faster, or there is a damaged one.
    OwnFd other = existing(name, header);
    if (other) {
      platform::remove_in(directory, fresh);
      return other;
    }
    errno = 0;
    if (platform::rename_in(directory, fresh, directory, name, Overwrite::kYes) == 0) return fd;
  }
  const int error = errno == 0 ? ENOSPC : errno;
  platform::remove_in(fd_.get(), fresh);
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
      if (platform::remove_in(fd_.get(), file.name) == 0) total -= std::min(total, before);
      continue;
    }
    const uint64_t after = space_of(file.fd.get());
    total -= std::min(total, before - std::min(before, after));
    if (--file.regions == 0) remove_idle(fd_.get(), file.name, file.fd.get());
  }
}

}  // namespace cairn::disk_cache
