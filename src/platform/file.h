#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "platform/types.h"

namespace cairn::platform {

enum class FileType {
  kRegular,
  kDirectory,
  kBlockDevice,
  kCharacterDevice,
  kSocket,
  kPipe,
  kLink,
  kOther
};

struct FileStatus {
  FileType type = FileType::kOther;
  uint64_t size = 0;
  uint64_t allocated = 0;  // bytes that it takes of the file system
  uint64_t volume = 0;     // with NUMBER: the same file
  uint64_t number = 0;
  uint64_t links = 1;    // its names; 0: it goes with its last descriptor
  uint64_t special = 0;  // of a device: its number
  int64_t modified = 0;  // seconds since 1970
  uint32_t modified_nanoseconds = 0;
  int64_t changed = 0;  // seconds since 1970: of what the system notes of it; on Windows: made
  bool write_protected = false;  // no user has the permission to write

  bool is_regular() const { return type == FileType::kRegular; }
  bool is_directory() const { return type == FileType::kDirectory; }
  bool is_device() const {
    return type == FileType::kBlockDevice || type == FileType::kCharacterDevice;
  }
  bool same_file(const FileStatus& other) const {
    return volume == other.volume && number == other.number;
  }
};

// Of what PATH leads to; nothing, with errno, where that cannot be seen.
std::optional<FileStatus> status(const std::string& path);
// Of the link itself where PATH is one.
std::optional<FileStatus> link_status(const std::string& path);
std::optional<FileStatus> status_of(int fd);
bool exists(const std::string& path);
// A regular file, or a link to one.
bool is_regular_file(const std::string& path);
// A regular file that is no link: what may be removed.
bool is_plain_file(const std::string& path);

// FLAGS and MODE as of open(); nothing is inherited by programs that are started. The descriptor.
int open(const std::string& path, int flags, unsigned mode = 0644);
// What FD is: a file, a socket or a wake-up.
int close(int fd);

// At the place of the descriptor.
ssize_t read(int fd, void* bytes, size_t count);
ssize_t write(int fd, const void* bytes, size_t count);

// At OFFSET. At most kMostBuffers buffers are looked at; less than asked for may be moved.
inline constexpr size_t kMostBuffers = 1024;
ssize_t read_at(int fd, std::span<const iovec> buffers, uint64_t offset);
ssize_t write_at(int fd, std::span<const iovec> buffers, uint64_t offset);
// As read_at, but only what is in memory already: -1 where that is nothing, or cannot be known.
ssize_t read_cached_at(int fd, std::span<const iovec> buffers, uint64_t offset);
ssize_t read_at(int fd, void* bytes, size_t count, uint64_t offset);
ssize_t write_at(int fd, const void* bytes, size_t count, uint64_t offset);

// Where a file or device ends.
std::optional<uint64_t> end_of(int fd);
int set_length(int fd, uint64_t length);
// What was written survives a loss of power once these return 0; sync_data leaves out times.
int sync(int fd);
int sync_data(int fd);
// So that names in it survive as well. EINVAL: the file system cannot.
int sync_directory(const std::string& path);

enum class Allocation {
  kReserve,  // room for the range; the file grows to its end
  kPunch,    // the range is a hole and reads as zeroes; the length stays
  kZero,     // the range reads as zeroes and keeps or gets room; the file grows
};
// EOPNOTSUPP where the file system cannot.
int allocate(int fd, Allocation what, uint64_t offset, uint64_t length);
// As kReserve, by writing where the file system cannot. Returns the error number, as
// posix_fallocate does.
int reserve(int fd, uint64_t offset, uint64_t length);

// The first byte from OFFSET on that is data, or in a hole. ENXIO: none.
std::optional<uint64_t> next_data(int fd, uint64_t offset);
std::optional<uint64_t> next_hole(int fd, uint64_t offset);

// Copies between files inside of the file system where that can, and moves no descriptor's place.
ssize_t copy_range(int from, uint64_t from_offset, int to, uint64_t to_offset, uint64_t length);

// The file system is one in memory: calls return at once, and need no other thread.
bool lives_in_memory(int fd);
// What is free on the file system of FD; nothing where that says nothing.
std::optional<uint64_t> free_bytes(int fd);
// What this user may still write into the file system of DIRECTORY.
std::optional<uint64_t> bytes_for_user(const std::string& directory);
// Whether FD may be written to.
bool is_writable(int fd);
// The file of FD once more, for writing through the page cache.
int reopen_for_writing(int fd);
// The pipe of FD once more, of which writing does not wait; -1 where that cannot be.
int reopen_unblocked(int fd);
// The bytes that a pipe takes as a whole.
extern const size_t kPipeBytes;
// Of a descriptor that was opened with O_NONBLOCK.
void set_blocking(int fd);
// What is to be called in messages; PATH, but for a file without a name.
std::string shown_path(std::string path);

int remove(const std::string& path);
// For signal handlers: looks at NAME, and with REMOVE removes it where it is a regular file.
enum class Abandoned { kMissing, kRemoved, kStays };
Abandoned remove_abandoned(const char* name, bool remove) noexcept;
// Over a file of the name TO.
int rename(const std::string& from, const std::string& to);
// PATH without links, "." and "..", from the root; empty, with errno, where it leads nowhere.
std::string canonical(const std::string& path);
bool may_read(const std::string& path);

}  // namespace cairn::platform
