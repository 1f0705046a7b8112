#pragma once

// The headers of Windows, in the one order that works, without the macros that hurt.
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#include <winsock2.h>

#include <atomic>
#include <cstdint>
#include <string>

namespace cairn::platform {

// What a descriptor is. The first three are the standard handles of the program; the table is never
// locked: two threads that close one descriptor are at fault anyway.
struct Descriptor {
  enum class Kind : uint8_t { kNone, kTaken, kFile, kSocket };
  std::atomic<Kind> kind{Kind::kNone};
  std::atomic<uintptr_t> value{0};
  std::atomic<uint64_t> locked{0};  // the bytes that it has locked, modulo 64
  std::atomic<uintptr_t> lock{0};   // of a directory that is locked: the handle that locks it
  std::atomic<bool> sparse{false};  // the file system was asked for holes, and said yes
  std::atomic<bool> writable{false};
};

// Takes VALUE, a HANDLE or a SOCKET, into the table; closes it, and gives -1 with errno, where that
// is full.
int add_descriptor(Descriptor::Kind kind, uintptr_t value);
// Null, with errno EBADF, for what is none.
Descriptor* find_descriptor(int fd);
// INVALID_HANDLE_VALUE or INVALID_SOCKET, with errno, where FD is no file or no socket.
HANDLE handle_of(int fd);
SOCKET socket_of(int fd);
// Frees the place of FD and gives what was there. False, with errno, where nothing was.
bool take_descriptor(int fd, Descriptor::Kind* kind, uintptr_t* value);

// What lock_folder() did is undone.
void release_lock(Descriptor& place);

// Sets errno by what Windows says, and returns -1.
int fail(DWORD error);
int fail_as(int error);
inline int fail() { return fail(::GetLastError()); }

// What carries OFFSET into a call.
inline OVERLAPPED place_of(uint64_t offset) {
  OVERLAPPED place{};
  place.Offset = static_cast<DWORD>(offset);
  place.OffsetHigh = static_cast<DWORD>(offset >> 32);
  return place;
}

std::wstring widen(const std::string& text);
std::string narrow(const wchar_t* text, size_t length);
// PATH as functions of Windows take it, however long it is.
std::wstring native_path(const std::string& path);
// What a name that Windows gives is called here: without the mark of long ones, and with slashes.
std::string shown_name(std::wstring name);

}  // namespace cairn::platform
