#include "platform/windows/descriptors.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include "platform/types.h"

namespace cairn::platform {
namespace {

constexpr size_t kMost = 8192;
constexpr int kStandard = 3;
std::array<Descriptor, kMost> table;

void close_value(Descriptor::Kind kind, uintptr_t value) {
  if (kind == Descriptor::Kind::kSocket)
    ::closesocket(static_cast<SOCKET>(value));
  else
    ::CloseHandle(reinterpret_cast<HANDLE>(value));
}

void take_standard_handles() {
  static const bool taken = [] {
    constexpr DWORD kNumbers[] = {STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE};
    for (int fd = 0; fd < kStandard; ++fd) {
      const HANDLE handle = ::GetStdHandle(kNumbers[fd]);
      if (handle == nullptr || handle == INVALID_HANDLE_VALUE) continue;
      table[static_cast<size_t>(fd)].value = reinterpret_cast<uintptr_t>(handle);
      table[static_cast<size_t>(fd)].writable = fd != 0;
      table[static_cast<size_t>(fd)].kind = Descriptor::Kind::kFile;
    }
    return true;
  }();
  static_cast<void>(taken);
}

struct ErrorRow {
  DWORD windows;
  int posix;
};
constexpr ErrorRow kErrors[] = {
    {ERROR_FILE_NOT_FOUND, ENOENT},
    {ERROR_PATH_NOT_FOUND, ENOENT},
    {ERROR_BAD_NETPATH, ENOENT},
    {ERROR_BAD_NET_NAME, ENOENT},
    {ERROR_BAD_PATHNAME, ENOENT},
    {ERROR_INVALID_NAME, ENOENT},
    {ERROR_INVALID_DRIVE, ENOENT},
    {ERROR_ACCESS_DENIED, EACCES},
    {ERROR_SHARING_VIOLATION, EBUSY},
    {ERROR_LOCK_VIOLATION, EAGAIN},
    {ERROR_WRITE_PROTECT, EROFS},
    {ERROR_FILE_EXISTS, EEXIST},
    {ERROR_ALREADY_EXISTS, EEXIST},
    {ERROR_DIR_NOT_EMPTY, ENOTEMPTY},
    {ERROR_DIRECTORY, ENOTDIR},
    {ERROR_DISK_FULL, ENOSPC},
    {ERROR_HANDLE_DISK_FULL, ENOSPC},
    {ERROR_NOT_ENOUGH_MEMORY, ENOMEM},
    {ERROR_OUTOFMEMORY, ENOMEM},
    {ERROR_TOO_MANY_OPEN_FILES, EMFILE},
    {ERROR_INVALID_HANDLE, EBADF},
    {ERROR_INVALID_PARAMETER, EINVAL},
    {ERROR_NEGATIVE_SEEK, EINVAL},
    {ERROR_NOT_SUPPORTED, EOPNOTSUPP},
    {ERROR_INVALID_FUNCTION, EOPNOTSUPP},
    {ERROR_CALL_NOT_IMPLEMENTED, EOPNOTSUPP},
    {ERROR_BROKEN_PIPE, EPIPE},
    {ERROR_NO_DATA, EPIPE},
    {ERROR_FILENAME_EXCED_RANGE, ENAMETOOLONG},
    {ERROR_FILE_TOO_LARGE, EFBIG},
    {ERROR_NOT_READY, ENOMEDIUM},
    {ERROR_NO_MEDIA_IN_DRIVE, ENOMEDIUM},
    {ERROR_BUSY, EBUSY},
    {ERROR_OPERATION_ABORTED, ECANCELED},
    {WSAEWOULDBLOCK, EAGAIN},
    {WSAEINPROGRESS, EINPROGRESS},
    {WSAEINTR, EINTR},
    {WSAEACCES, EACCES},
    {WSAEINVAL, EINVAL},
    {WSAEMFILE, EMFILE},
    {WSAENOTSOCK, ENOTSOCK},
    {WSAEAFNOSUPPORT, EAFNOSUPPORT},
    {WSAEADDRINUSE, EADDRINUSE},
    {WSAEADDRNOTAVAIL, EADDRNOTAVAIL},
    {WSAENETDOWN, ENETDOWN},
    {WSAENETUNREACH, ENETUNREACH},
    {WSAECONNABORTED, ECONNABORTED},
    {WSAECONNRESET, ECONNRESET},
    {WSAENOBUFS, ENOBUFS},
    {WSAEISCONN, EISCONN},
    {WSAENOTCONN, ENOTCONN},
    {WSAESHUTDOWN, EPIPE},
    {WSAETIMEDOUT, ETIMEDOUT},
    {WSAECONNREFUSED, ECONNREFUSED},
    {WSAEHOSTUNREACH, EHOSTUNREACH},
};

}  // namespace

int add_descriptor(Descriptor::Kind kind, uintptr_t value) {
  take_standard_handles();
  for (size_t fd = kStandard; fd < kMost; ++fd) {
    Descriptor& place = table[fd];
    Descriptor::Kind none = Descriptor::Kind::kNone;
    if (!place.kind.compare_exchange_strong(none, Descriptor::Kind::kTaken)) continue;
    place.value = value;
    place.locked = 0;
    place.sparse = false;
    place.writable = false;
    place.kind = kind;
    return static_cast<int>(fd);
  }
  close_value(kind, value);
  return fail_as(EMFILE);
}

Descriptor* find_descriptor(int fd) {
  take_standard_handles();
  if (fd >= 0 && static_cast<size_t>(fd) < kMost) {
    Descriptor& found = table[static_cast<size_t>(fd)];
    const Descriptor::Kind kind = found.kind;
    if (kind == Descriptor::Kind::kFile || kind == Descriptor::Kind::kSocket) return &found;
  }
  errno = EBADF;
  return nullptr;
}

HANDLE handle_of(int fd) {
  const Descriptor* found = find_descriptor(fd);
  if (found == nullptr) return INVALID_HANDLE_VALUE;
  if (found->kind == Descriptor::Kind::kFile) return reinterpret_cast<HANDLE>(found->value.load());
  errno = EINVAL;
  return INVALID_HANDLE_VALUE;
}

SOCKET socket_of(int fd) {
  const Descriptor* found = find_descriptor(fd);
  if (found == nullptr) return INVALID_SOCKET;
  if (found->kind == Descriptor::Kind::kSocket) return static_cast<SOCKET>(found->value.load());
  errno = ENOTSOCK;
  return INVALID_SOCKET;
}

bool take_descriptor(int fd, Descriptor::Kind* kind, uintptr_t* value) {
  Descriptor* const found = find_descriptor(fd);
  if (found == nullptr) return false;
  release_lock(*found);
  *kind = found->kind;
  *value = found->value;
  found->kind = Descriptor::Kind::kNone;
  return true;
}

void release_lock(Descriptor& place) {
  const uintptr_t lock = place.lock.exchange(0);
  if (lock != 0) ::CloseHandle(reinterpret_cast<HANDLE>(lock));
}

int fail_as(int error) {
  errno = error;
  return -1;
}

int fail(DWORD error) {
  const auto* const row = std::find_if(std::begin(kErrors), std::end(kErrors),
                                       [&](const ErrorRow& each) { return each.windows == error; });
  return fail_as(row == std::end(kErrors) ? EIO : row->posix);
}

std::wstring widen(const std::string& text) {
  if (text.empty()) return {};
  const int bytes = static_cast<int>(text.size());
  const int length = ::MultiByteToWideChar(CP_UTF8, 0, text.data(), bytes, nullptr, 0);
  std::wstring wide(static_cast<size_t>(std::max(length, 0)), L'\0');
  ::MultiByteToWideChar(CP_UTF8, 0, text.data(), bytes, wide.data(), length);
  return wide;
}

std::string narrow(const wchar_t* text, size_t length) {
  if (length == 0) return {};
  const int units = static_cast<int>(length);
  const int bytes = ::WideCharToMultiByte(CP_UTF8, 0, text, units, nullptr, 0, nullptr, nullptr);
  std::string result(static_cast<size_t>(std::max(bytes, 0)), '\0');
  ::WideCharToMultiByte(CP_UTF8, 0, text, units, result.data(), bytes, nullptr, nullptr);
  return result;
}

std::wstring native_path(const std::string& path) {
  // Longer ones need the mark, which is only for names from the root, without "." and "..".
  constexpr size_t kShort = 240;
  std::wstring wide = widen(path);
  std::replace(wide.begin(), wide.end(), L'/', L'\\');
  if (wide.starts_with(L"\\\\?\\") || wide.starts_with(L"\\\\.\\")) return wide;
  const DWORD room = ::GetFullPathNameW(wide.c_str(), 0, nullptr, nullptr);
  if (room < kShort) return wide;
  std::wstring whole(room, L'\0');
  whole.resize(::GetFullPathNameW(wide.c_str(), room, whole.data(), nullptr));
  if (whole.starts_with(L"\\\\")) return L"\\\\?\\UNC" + whole.substr(1);
  return L"\\\\?\\" + whole;
}

std::string shown_name(std::wstring name) {
  constexpr std::wstring_view kLong = L"\\\\?\\";
  constexpr std::wstring_view kShare = L"\\\\?\\UNC\\";
  if (name.starts_with(kShare))
    name.replace(0, kShare.size(), L"\\\\");
  else if (name.starts_with(kLong))
    name.erase(0, kLong.size());
  std::replace(name.begin(), name.end(), L'\\', L'/');
  return narrow(name.data(), name.size());
}

}  // namespace cairn::platform
