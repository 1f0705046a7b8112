#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "platform/file.h"
#include "platform/windows/descriptors.h"

namespace cairn::platform {

// Closes it at the end of a block.
class Handle {
 public:
  explicit Handle(HANDLE handle) : handle_(handle) {}
  Handle(const Handle&) = delete;
  ~Handle() { reset(INVALID_HANDLE_VALUE); }
  HANDLE get() const { return handle_; }
  void reset(HANDLE handle) {
    if (handle_ != INVALID_HANDLE_VALUE) ::CloseHandle(handle_);
    handle_ = handle;
  }
  HANDLE release() {
    const HANDLE handle = handle_;
    handle_ = INVALID_HANDLE_VALUE;
    return handle;
  }
  explicit operator bool() const { return handle_ != INVALID_HANDLE_VALUE; }

 private:
  HANDLE handle_;
};

// Everybody may do with the file what they like.
inline constexpr DWORD kSharedByAll = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;

std::optional<FileStatus> status_of_handle(HANDLE handle);
// What FLAGS of open() ask for, as rights.
DWORD access_of(int flags);
// Asks for a file in which ranges may be missing. Where the file system has none it goes without.
void make_sparse(Descriptor& file);
// Seconds since 1970 as Windows counts, and back.
FILETIME filetime_of(int64_t seconds);

// An option: a link itself is opened.
inline constexpr ULONG kReparsePoint = 0x00200000;
// How open_relative() opens; names as NtCreateFile has them.
struct Opening {
  ACCESS_MASK access = 0;
  ULONG sharing = kSharedByAll;
  ULONG disposition = 1;  // FILE_OPEN
  ULONG options = 0;
};
// NAME, with backslashes, in the open directory DIRECTORY; an empty one is DIRECTORY once more.
// INVALID_HANDLE_VALUE, with errno.
HANDLE open_relative(HANDLE folder, std::wstring_view name, const Opening& opening);

}  // namespace cairn::platform
