#include "platform/system.h"

#include <algorithm>
#include <cerrno>
#include <iterator>

#include "platform/types.h"
#include "platform/windows/descriptors.h"
// After the headers of Windows.
#include <bcrypt.h>

namespace cairn::platform {
namespace {

struct TextRow {
  int error;
  const char* text;
};
// As on Linux: scripts, and people, look for these.
constexpr TextRow kTexts[] = {
    {0, "Success"},
    {EPERM, "Operation not permitted"},
    {ENOENT, "No such file or directory"},
    {EINTR, "Interrupted system call"},
    {EIO, "Input/output error"},
    {ENXIO, "No such device or address"},
    {E2BIG, "Argument list too long"},
    {EBADF, "Bad file descriptor"},
    {EAGAIN, "Resource temporarily unavailable"},
    {ENOMEM, "Cannot allocate memory"},
    {EACCES, "Permission denied"},
    {EFAULT, "Bad address"},
    {EBUSY, "Device or resource busy"},
    {EEXIST, "File exists"},
    {EXDEV, "Invalid cross-device link"},
    {ENODEV, "No such device"},
    {ENOTDIR, "Not a directory"},
    {EISDIR, "Is a directory"},
    {EINVAL, "Invalid argument"},
    {EMFILE, "Too many open files"},
    {ENOTTY, "Inappropriate ioctl for device"},
    {EFBIG, "File too large"},
    {ENOSPC, "No space left on device"},
    {ESPIPE, "Illegal seek"},
    {EROFS, "Read-only file system"},
    {EPIPE, "Broken pipe"},
    {ERANGE, "Numerical result out of range"},
    {ENAMETOOLONG, "File name too long"},
    {ENOSYS, "Function not implemented"},
    {ENOTEMPTY, "Directory not empty"},
    {ELOOP, "Too many levels of symbolic links"},
    {EOVERFLOW, "Value too large for defined data type"},
    {EILSEQ, "Invalid or incomplete multibyte or wide character"},
    {ENOTSOCK, "Socket operation on non-socket"},
    {EPROTO, "Protocol error"},
    {ENOTSUP, "Operation not supported"},
    {EOPNOTSUPP, "Operation not supported"},
    {EAFNOSUPPORT, "Address family not supported by protocol"},
    {EADDRINUSE, "Address already in use"},
    {EADDRNOTAVAIL, "Cannot assign requested address"},
    {ENETDOWN, "Network is down"},
    {ENETUNREACH, "Network is unreachable"},
    {ECONNABORTED, "Software caused connection abort"},
    {ECONNRESET, "Connection reset by peer"},
    {ENOBUFS, "No buffer space available"},
    {EISCONN, "Transport endpoint is already connected"},
    {ENOTCONN, "Transport endpoint is not connected"},
    {ETIMEDOUT, "Connection timed out"},
    {ECONNREFUSED, "Connection refused"},
    {EHOSTUNREACH, "No route to host"},
    {EALREADY, "Operation already in progress"},
    {EINPROGRESS, "Operation now in progress"},
    {ECANCELED, "Operation canceled"},
    {ENOTRECOVERABLE, "State not recoverable"},
    {EDQUOT, "Disk quota exceeded"},
    {ENOMEDIUM, "No medium found"},
    {ESHUTDOWN, "Cannot send after transport endpoint shutdown"},
    {EREMOTEIO, "Remote I/O error"},
    {ESTALE, "Stale file handle"},
};

// Whether the set at AT, after its '[', has C; END is past its ']', or npos where it has none.
bool in_set(const std::string& pattern, size_t at, char c, size_t* end) {
  const bool negated = at < pattern.size() && (pattern[at] == '!' || pattern[at] == '^');
  if (negated) ++at;
  bool found = false;
  for (size_t first = at; at < pattern.size() && (pattern[at] != ']' || at == first); ++at) {
    if (at + 2 < pattern.size() && pattern[at + 1] == '-' && pattern[at + 2] != ']') {
      found = found || (pattern[at] <= c && c <= pattern[at + 2]);
      at += 2;
    } else {
      found = found || pattern[at] == c;
    }
  }
  *end = at < pattern.size() ? at + 1 : std::string::npos;
  return found != negated;
}

}  // namespace

bool random_bytes(void* bytes, size_t count) {
  if (::BCryptGenRandom(nullptr, static_cast<PUCHAR>(bytes), static_cast<ULONG>(count),
                        BCRYPT_USE_SYSTEM_PREFERRED_RNG) >= 0)
    return true;
  errno = EIO;
  return false;
}

std::string error_text(int error) {
  const auto* const row = std::find_if(std::begin(kTexts), std::end(kTexts),
                                       [&](const TextRow& each) { return each.error == error; });
  return row == std::end(kTexts) ? "Unknown error " + std::to_string(error) : row->text;
}

uint64_t thread_cpu_nanoseconds() {
  FILETIME made{}, ended{}, kernel{}, user{};
  if (::GetThreadTimes(::GetCurrentThread(), &made, &ended, &kernel, &user) == 0) return 0;
  const auto ticks = [](const FILETIME& time) {
    return static_cast<uint64_t>(time.dwHighDateTime) << 32 | time.dwLowDateTime;
  };
  return (ticks(kernel) + ticks(user)) * 100;
}

std::chrono::steady_clock::time_point coarse_now() { return std::chrono::steady_clock::now(); }

bool to_utc(std::time_t seconds, std::tm* parts) { return ::gmtime_s(parts, &seconds) == 0; }
bool to_local(std::time_t seconds, std::tm* parts) { return ::localtime_s(parts, &seconds) == 0; }

long read_kernel_key(long, void*, size_t) { return fail_as(ENOSYS); }

unsigned long process_number() { return ::GetCurrentProcessId(); }

bool is_terminal(int fd) {
  DWORD mode = 0;
  return ::GetConsoleMode(handle_of(fd), &mode) != 0;
}

std::optional<unsigned> terminal_columns(int fd) {
  CONSOLE_SCREEN_BUFFER_INFO found{};
  if (::GetConsoleScreenBufferInfo(handle_of(fd), &found) == 0) return std::nullopt;
  return static_cast<unsigned>(found.srWindow.Right - found.srWindow.Left + 1);
}

char16_t upper_case(char16_t unit) {
  const auto small = static_cast<wchar_t>(unit);
  wchar_t upper = small;
  return ::LCMapStringEx(LOCALE_NAME_INVARIANT, LCMAP_UPPERCASE, &small, 1, &upper, 1, nullptr,
                         nullptr, 0) == 1
             ? static_cast<char16_t>(upper)
             : unit;
}

bool matches_pattern(const std::string& pattern, const std::string& name) {
  size_t at = 0, in = 0;
  size_t star = std::string::npos, star_in = 0;
  while (true) {
    size_t next = at + 1;
    bool fits = false;
    if (at < pattern.size() && pattern[at] == '*') {
      star = at++;
      star_in = in;
      continue;
    }
    if (at == pattern.size()) {
      fits = in == name.size();
      if (fits) return true;
    } else if (in < name.size()) {
      if (pattern[at] == '[') {
        fits = in_set(pattern, at + 1, name[in], &next);
        if (next == std::string::npos) {
          next = at + 1;
          fits = name[in] == '[';
        }
      } else if (pattern[at] == '\\' && next < pattern.size()) {
        fits = pattern[next++] == name[in];
      } else {
        fits = pattern[at] == '?' || pattern[at] == name[in];
      }
    }
    if (fits) {
      at = next;
      ++in;
      continue;
    }
    // The last star takes one more.
    if (star == std::string::npos || star_in >= name.size()) return false;
    in = ++star_in;
    at = star + 1;
  }
}

}  // namespace cairn::platform
