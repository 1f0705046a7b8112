#include "platform/file.h"

#include <algorithm>
#include <cerrno>
#include <iterator>

#include "platform/windows/descriptors.h"
#include "platform/windows/drive_table.h"
#include "platform/windows/opening.h"
// After the headers of Windows.
#include <winioctl.h>

namespace cairn::platform {
namespace {

// Between 1601, where Windows begins to count, and 1970.
constexpr uint64_t kEpochSeconds = 11644473600;
constexpr uint64_t kTicksPerSecond = 10000000;

uint64_t joined(DWORD high, DWORD low) { return static_cast<uint64_t>(high) << 32 | low; }

uint64_t ticks_of(const FILETIME& time) { return joined(time.dwHighDateTime, time.dwLowDateTime); }

int64_t seconds_of(uint64_t ticks) {
  return static_cast<int64_t>(ticks / kTicksPerSecond) - static_cast<int64_t>(kEpochSeconds);
}

// A name for something else; other reparse points are files whose content is stored elsewhere.
bool is_link(HANDLE handle, DWORD attributes) {
  if ((attributes & FILE_ATTRIBUTE_REPARSE_POINT) == 0) return false;
  FILE_ATTRIBUTE_TAG_INFO found{};
  return ::GetFileInformationByHandleEx(handle, FileAttributeTagInfo, &found, sizeof found) == 0 ||
         IsReparseTagNameSurrogate(found.ReparseTag);
}

std::optional<FileStatus> look_at(const std::string& path, DWORD flags) {
  if (path.empty()) {
    errno = ENOENT;
    return std::nullopt;
  }
  if (named_drive(path)) return FileStatus{.type = FileType::kBlockDevice};
  if (errno != 0) return std::nullopt;
  const Handle handle(::CreateFileW(native_path(path).c_str(), FILE_READ_ATTRIBUTES,
                                    FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr,
                                    OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS | flags, nullptr));
  if (!handle) {
    fail();
    return std::nullopt;
  }
  return status_of_handle(handle.get());
}

DWORD creation_of(int flags) {
  if ((flags & O_CREAT) != 0) {
    if ((flags & O_EXCL) != 0) return CREATE_NEW;
    return (flags & O_TRUNC) != 0 ? CREATE_ALWAYS : OPEN_ALWAYS;
  }
  return (flags & O_TRUNC) != 0 ? TRUNCATE_EXISTING : OPEN_EXISTING;
}

}  // namespace

std::optional<FileStatus> status_of_handle(HANDLE handle) {
  FileStatus status;
  switch (::GetFileType(handle)) {
    case FILE_TYPE_CHAR:
      status.type = FileType::kCharacterDevice;
      return status;
    case FILE_TYPE_PIPE:
      status.type = FileType::kPipe;
      return status;
    default:
      break;
  }
  BY_HANDLE_FILE_INFORMATION found{};
  if (::GetFileInformationByHandle(handle, &found) == 0) {
    fail();
    return std::nullopt;
  }
  const bool directory = (found.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
  status.type = is_link(handle, found.dwFileAttributes) ? FileType::kLink
                : directory                             ? FileType::kDirectory
                                                        : FileType::kRegular;
  status.write_protected = !directory && (found.dwFileAttributes & FILE_ATTRIBUTE_READONLY) != 0;
  status.size = joined(found.nFileSizeHigh, found.nFileSizeLow);
  status.links = found.nNumberOfLinks;
  status.volume = found.dwVolumeSerialNumber;
  status.number = joined(found.nFileIndexHigh, found.nFileIndexLow);
  const uint64_t ticks = ticks_of(found.ftLastWriteTime);
  status.modified = seconds_of(ticks);
  status.modified_nanoseconds = static_cast<uint32_t>(ticks % kTicksPerSecond * 100);
  status.changed = seconds_of(ticks_of(found.ftCreationTime));
  FILE_STANDARD_INFO sizes{};
  status.allocated = status.size;
  if (::GetFileInformationByHandleEx(handle, FileStandardInfo, &sizes, sizeof sizes) != 0) {
    status.allocated = static_cast<uint64_t>(sizes.AllocationSize.QuadPart);
    if (sizes.DeletePending) status.links = 0;
  }
  return status;
}

DWORD access_of(int flags) {
  const int mode = flags & (O_RDONLY | O_WRONLY | O_RDWR);
  if (mode == O_RDONLY) return GENERIC_READ;
  if ((flags & O_APPEND) != 0)
    return (mode == O_RDWR ? GENERIC_READ : 0) | FILE_APPEND_DATA | FILE_WRITE_ATTRIBUTES |
           SYNCHRONIZE;
  return mode == O_WRONLY ? GENERIC_WRITE : GENERIC_READ | GENERIC_WRITE;
}

void make_sparse(Descriptor& file) {
  DWORD got = 0;
  file.sparse = ::DeviceIoControl(reinterpret_cast<HANDLE>(file.value.load()), FSCTL_SET_SPARSE,
                                  nullptr, 0, nullptr, 0, &got, nullptr) != 0;
}

FILETIME filetime_of(int64_t seconds) {
  const uint64_t ticks =
      static_cast<uint64_t>(seconds + static_cast<int64_t>(kEpochSeconds)) * kTicksPerSecond;
  return {.dwLowDateTime = static_cast<DWORD>(ticks),
          .dwHighDateTime = static_cast<DWORD>(ticks >> 32)};
}

std::optional<FileStatus> status(const std::string& path) { return look_at(path, 0); }

std::optional<FileStatus> link_status(const std::string& path) {
  return look_at(path, FILE_FLAG_OPEN_REPARSE_POINT);
}

std::optional<FileStatus> status_of(int fd) {
  const Descriptor* found = find_descriptor(fd);
  if (found == nullptr) return std::nullopt;
  if (found->kind == Descriptor::Kind::kSocket) return FileStatus{.type = FileType::kSocket};
  if (drive_of(fd)) return FileStatus{.type = FileType::kBlockDevice};
  return status_of_handle(handle_of(fd));
}

int open(const std::string& path, int flags, unsigned) {
  if (path.empty()) return fail_as(ENOENT);
  if (const auto drive = named_drive(path))
    return open_named_drive(*drive, (flags & (O_WRONLY | O_RDWR)) != 0);
  if (errno != 0) return -1;
  DWORD attributes = FILE_FLAG_BACKUP_SEMANTICS;
  if ((flags & O_DIRECT) != 0) attributes |= FILE_FLAG_NO_BUFFERING;
  if ((flags & O_NOFOLLOW) != 0) attributes |= FILE_FLAG_OPEN_REPARSE_POINT;
  const HANDLE handle = ::CreateFileW(native_path(path).c_str(), access_of(flags),
                                      FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                                      nullptr, creation_of(flags), attributes, nullptr);
  if (handle == INVALID_HANDLE_VALUE) return fail();
  const bool made = (flags & O_CREAT) != 0 && ::GetLastError() != ERROR_ALREADY_EXISTS;
  const auto found = status_of_handle(handle);
  const bool directory = found && found->is_directory();
  const bool wanted = (flags & O_DIRECTORY) != 0;
  if ((wanted && !directory) || (directory && !wanted) ||
      ((flags & O_NOFOLLOW) != 0 && found && found->type == FileType::kLink)) {
    ::CloseHandle(handle);
    return fail_as(directory ? EISDIR : wanted ? ENOTDIR : ELOOP);
  }
  const int fd = add_descriptor(Descriptor::Kind::kFile, reinterpret_cast<uintptr_t>(handle));
  if (fd < 0) return -1;
  Descriptor* const place = find_descriptor(fd);
  place->writable = (flags & (O_WRONLY | O_RDWR)) != 0;
  if (made) make_sparse(*place);
  return fd;
}

int close(int fd) {
  forget_drive(fd);
  Descriptor::Kind kind = Descriptor::Kind::kNone;
  uintptr_t value = 0;
  if (!take_descriptor(fd, &kind, &value)) return -1;
  if (kind == Descriptor::Kind::kSocket)
    return ::closesocket(static_cast<SOCKET>(value)) == 0
               ? 0
               : fail(static_cast<DWORD>(WSAGetLastError()));
  return ::CloseHandle(reinterpret_cast<HANDLE>(value)) != 0 ? 0 : fail();
}

ssize_t read(int fd, void* bytes, size_t count) {
  const HANDLE handle = handle_of(fd);
  if (handle == INVALID_HANDLE_VALUE) return -1;
  DWORD got = 0;
  const DWORD most = static_cast<DWORD>(std::min<size_t>(count, 1 << 30));
  if (::ReadFile(handle, bytes, most, &got, nullptr) != 0) return static_cast<ssize_t>(got);
  const DWORD error = ::GetLastError();
  return error == ERROR_BROKEN_PIPE || error == ERROR_HANDLE_EOF ? 0 : fail(error);
}

ssize_t write(int fd, const void* bytes, size_t count) {
  const HANDLE handle = handle_of(fd);
  if (handle == INVALID_HANDLE_VALUE) return -1;
  DWORD put = 0;
  const DWORD most = static_cast<DWORD>(std::min<size_t>(count, 1 << 30));
  return ::WriteFile(handle, bytes, most, &put, nullptr) != 0 ? static_cast<ssize_t>(put) : fail();
}

ssize_t read_at(int fd, void* bytes, size_t count, uint64_t offset) {
  const HANDLE handle = handle_of(fd);
  if (handle == INVALID_HANDLE_VALUE) return -1;
  OVERLAPPED place = place_of(offset);
  DWORD got = 0;
  const DWORD most = static_cast<DWORD>(std::min<size_t>(count, 1 << 30));
  if (::ReadFile(handle, bytes, most, &got, &place) != 0) return static_cast<ssize_t>(got);
  const DWORD error = ::GetLastError();
  return error == ERROR_HANDLE_EOF ? 0 : fail(error);
}

ssize_t write_at(int fd, const void* bytes, size_t count, uint64_t offset) {
  const HANDLE handle = handle_of(fd);
  if (handle == INVALID_HANDLE_VALUE) return -1;
  OVERLAPPED place = place_of(offset);
  DWORD put = 0;
  const DWORD most = static_cast<DWORD>(std::min<size_t>(count, 1 << 30));
  return ::WriteFile(handle, bytes, most, &put, &place) != 0 ? static_cast<ssize_t>(put) : fail();
}

ssize_t read_at(int fd, std::span<const iovec> buffers, uint64_t offset) {
  ssize_t done = 0;
  for (const iovec& buffer : buffers.first(std::min(buffers.size(), kMostBuffers))) {
    const ssize_t got =
        read_at(fd, buffer.iov_base, buffer.iov_len, offset + static_cast<uint64_t>(done));
    if (got < 0) return done != 0 ? done : -1;
    done += got;
    if (static_cast<size_t>(got) < buffer.iov_len) break;
  }
  return done;
}

ssize_t write_at(int fd, std::span<const iovec> buffers, uint64_t offset) {
  ssize_t done = 0;
  for (const iovec& buffer : buffers.first(std::min(buffers.size(), kMostBuffers))) {
    const ssize_t put =
        write_at(fd, buffer.iov_base, buffer.iov_len, offset + static_cast<uint64_t>(done));
    if (put < 0) return done != 0 ? done : -1;
    done += put;
    if (static_cast<size_t>(put) < buffer.iov_len) break;
  }
  return done;
}

ssize_t read_cached_at(int, std::span<const iovec>, uint64_t) { return fail_as(EOPNOTSUPP); }

std::optional<uint64_t> end_of(int fd) {
  if (const auto drive = drive_of(fd)) return drive->length;
  const HANDLE handle = handle_of(fd);
  LARGE_INTEGER size{};
  if (handle == INVALID_HANDLE_VALUE) return std::nullopt;
  if (::GetFileSizeEx(handle, &size) == 0) {
    fail();
    return std::nullopt;
  }
  return static_cast<uint64_t>(size.QuadPart);
}

int set_length(int fd, uint64_t length) {
  const HANDLE handle = handle_of(fd);
  if (handle == INVALID_HANDLE_VALUE) return -1;
  if (length > static_cast<uint64_t>(INT64_MAX)) return fail_as(EFBIG);
  FILE_END_OF_FILE_INFO end{};
  end.EndOfFile.QuadPart = static_cast<LONGLONG>(length);
  return ::SetFileInformationByHandle(handle, FileEndOfFileInfo, &end, sizeof end) != 0 ? 0
                                                                                        : fail();
}

int sync(int fd) {
  const HANDLE handle = handle_of(fd);
  if (handle == INVALID_HANDLE_VALUE) return -1;
  if (::FlushFileBuffers(handle) != 0) return 0;
  const DWORD error = ::GetLastError();
  // Only those who may write may ask for it.
  const Handle writer(error == ERROR_ACCESS_DENIED
                          ? ::ReOpenFile(handle, GENERIC_WRITE, kSharedByAll, 0)
                          : INVALID_HANDLE_VALUE);
  if (writer && ::FlushFileBuffers(writer.get()) != 0) return 0;
  // The file system keeps names in order by itself.
  const auto found = status_of_handle(handle);
  return found && found->is_directory() ? 0 : fail(error);
}

int sync_data(int fd) { return sync(fd); }

int sync_directory(const std::string&) { return 0; }

int allocate(int fd, Allocation what, uint64_t offset, uint64_t length) {
  const auto size = end_of(fd);
  if (!size) return -1;
  if (offset > static_cast<uint64_t>(INT64_MAX) - length) return fail_as(EFBIG);
  const uint64_t end = offset + length;
  if (what != Allocation::kReserve) {
    Descriptor* const file = find_descriptor(fd);
    if (file == nullptr) return -1;
    if (!file->sparse) make_sparse(*file);
    if (!file->sparse) return fail_as(EOPNOTSUPP);
    FILE_ZERO_DATA_INFORMATION range{};
    range.FileOffset.QuadPart = static_cast<LONGLONG>(offset);
    range.BeyondFinalZero.QuadPart = static_cast<LONGLONG>(end);
    DWORD got = 0;
    if (::DeviceIoControl(handle_of(fd), FSCTL_SET_ZERO_DATA, &range, sizeof range, nullptr, 0,
                          &got, nullptr) == 0)
      return fail();
  }
  if (what == Allocation::kPunch || end <= *size) return 0;
  return set_length(fd, end);
}

int reserve(int fd, uint64_t offset, uint64_t length) {
  return allocate(fd, Allocation::kReserve, offset, length) == 0 ? 0 : errno;
}

namespace {

// The first range with data from OFFSET on. Where the file system says nothing it is all the rest.
std::optional<FILE_ALLOCATED_RANGE_BUFFER> data_from(int fd, uint64_t offset) {
  const auto size = end_of(fd);
  if (!size) return std::nullopt;
  if (offset >= *size) {
    errno = ENXIO;
    return std::nullopt;
  }
  FILE_ALLOCATED_RANGE_BUFFER asked{};
  asked.FileOffset.QuadPart = static_cast<LONGLONG>(offset);
  asked.Length.QuadPart = static_cast<LONGLONG>(*size - offset);
  FILE_ALLOCATED_RANGE_BUFFER found{};
  DWORD got = 0;
  const BOOL all = ::DeviceIoControl(handle_of(fd), FSCTL_QUERY_ALLOCATED_RANGES, &asked,
                                     sizeof asked, &found, sizeof found, &got, nullptr);
  if (all == 0 && ::GetLastError() != ERROR_MORE_DATA) return asked;
  if (got < sizeof found) {
    errno = ENXIO;
    return std::nullopt;
  }
  return found;
}

}  // namespace

std::optional<uint64_t> next_data(int fd, uint64_t offset) {
  const auto range = data_from(fd, offset);
  if (!range) return std::nullopt;
  return std::max(offset, static_cast<uint64_t>(range->FileOffset.QuadPart));
}

std::optional<uint64_t> next_hole(int fd, uint64_t offset) {
  const auto range = data_from(fd, offset);
  if (!range) return std::nullopt;
  const auto begin = static_cast<uint64_t>(range->FileOffset.QuadPart);
  return begin > offset ? offset : begin + static_cast<uint64_t>(range->Length.QuadPart);
}

ssize_t copy_range(int, uint64_t, int, uint64_t, uint64_t) { return fail_as(EOPNOTSUPP); }

bool lives_in_memory(int) { return false; }

std::optional<uint64_t> free_bytes(int fd) {
  const HANDLE handle = handle_of(fd);
  wchar_t name[MAX_PATH + 1];
  const DWORD length = ::GetFinalPathNameByHandleW(handle, name, MAX_PATH, VOLUME_NAME_DOS);
  if (length == 0 || length > MAX_PATH) return std::nullopt;
  std::wstring directory(name, length);
  directory.resize(directory.rfind(L'\\') + 1);
  ULARGE_INTEGER free{};
  if (::GetDiskFreeSpaceExW(directory.c_str(), &free, nullptr, nullptr) == 0) return std::nullopt;
  return free.QuadPart;
}

std::optional<uint64_t> bytes_for_user(const std::string& directory) {
  ULARGE_INTEGER left{};
  if (::GetDiskFreeSpaceExW(native_path(directory).c_str(), &left, nullptr, nullptr) == 0) {
    fail();
    return std::nullopt;
  }
  return left.QuadPart;
}

bool is_writable(int fd) {
  const Descriptor* found = find_descriptor(fd);
  return found != nullptr && found->writable;
}

int reopen_for_writing(int fd) {
  const HANDLE handle = ::ReOpenFile(handle_of(fd), GENERIC_WRITE,
                                     FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, 0);
  if (handle == INVALID_HANDLE_VALUE) return fail();
  return add_descriptor(Descriptor::Kind::kFile, reinterpret_cast<uintptr_t>(handle));
}

int reopen_unblocked(int) { return fail_as(EOPNOTSUPP); }
const size_t kPipeBytes = 4096;

void set_blocking(int) {}

std::string shown_path(std::string path) { return path; }

int remove(const std::string& path) {
  return ::DeleteFileW(native_path(path).c_str()) != 0 ? 0 : fail();
}

Abandoned remove_abandoned(const char* name, bool remove) noexcept {
  const auto found = link_status(name);
  if (!found) return Abandoned::kMissing;
  return remove && found->is_regular() && platform::remove(name) == 0 ? Abandoned::kRemoved
                                                                      : Abandoned::kStays;
}

int rename(const std::string& from, const std::string& to) {
  return ::MoveFileExW(native_path(from).c_str(), native_path(to).c_str(),
                       MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH) != 0
             ? 0
             : fail();
}

std::string canonical(const std::string& path) {
  const Handle handle(::CreateFileW(native_path(path).c_str(), FILE_READ_ATTRIBUTES,
                                    FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr,
                                    OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS, nullptr));
  std::wstring name(32768, L'\0');
  DWORD length = 0;
  if (handle)
    length = ::GetFinalPathNameByHandleW(handle.get(), name.data(), static_cast<DWORD>(name.size()),
                                         VOLUME_NAME_DOS);
  if (length == 0 || length > name.size()) {
    fail();
    return {};
  }
  name.resize(length);
  return shown_name(std::move(name));
}

bool may_read(const std::string& path) {
  const int fd = open(path, O_RDONLY);
  if (fd < 0) return false;
  platform::close(fd);
  return true;
}

}  // namespace cairn::platform
