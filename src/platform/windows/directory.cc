#include "platform/directory.h"

#include <algorithm>
#include <cctype>
#include <iterator>

#include "platform/file.h"
#include "platform/system.h"
#include "platform/windows/descriptors.h"

namespace cairn::platform {
namespace {

constexpr size_t kMostUnits = 255;  // of a name
// NUL by itself is used as a file is.
constexpr std::string_view kDevices[] = {"CON", "PRN", "AUX", "CONIN$", "CONOUT$"};
constexpr std::string_view kNothing = "NUL";

}  // namespace

int remove_directory(const std::string& path) {
  return ::RemoveDirectoryW(native_path(path).c_str()) != 0 ? 0 : fail();
}

int open_unnamed(const std::string& directory) {
  constexpr int kAttempts = 100;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    uint64_t number = 0;
    if (!random_bytes(&number, sizeof number)) return -1;
    const std::string name = directory + "/cairn-" + std::to_string(number);
    const HANDLE handle =
        ::CreateFileW(native_path(name).c_str(), GENERIC_READ | GENERIC_WRITE | DELETE,
                      FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr, CREATE_NEW,
                      FILE_ATTRIBUTE_TEMPORARY | FILE_FLAG_DELETE_ON_CLOSE, nullptr);
    if (handle != INVALID_HANDLE_VALUE)
      return add_descriptor(Descriptor::Kind::kFile, reinterpret_cast<uintptr_t>(handle));
    if (::GetLastError() != ERROR_FILE_EXISTS) break;
  }
  return fail();
}

std::string unnamed_path(int fd) {
  std::wstring name(32768, L'\0');
  const DWORD length = ::GetFinalPathNameByHandleW(
      handle_of(fd), name.data(), static_cast<DWORD>(name.size()), VOLUME_NAME_DOS);
  if (length == 0 || length > name.size()) return {};
  name.resize(length);
  return shown_name(std::move(name));
}

std::string absolute(const std::string& path) {
  const std::wstring wide = widen(path);
  std::wstring whole(::GetFullPathNameW(wide.c_str(), 0, nullptr, nullptr), L'\0');
  whole.resize(
      ::GetFullPathNameW(wide.c_str(), static_cast<DWORD>(whole.size()), whole.data(), nullptr));
  std::string shown = shown_name(std::move(whole));
  // A root keeps its own.
  while (shown.size() > 3 && shown.ends_with('/')) shown.pop_back();
  return shown;
}

const std::u16string_view kForbiddenInNames =
    u"\"*:<>?\\|\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14"
    u"\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f";

// What follows a colon would be a stream of the file that no program lists.
std::string unfit_name(const std::string& path) {
  std::string name = path.substr(last_separator(path) + 1);
  if (name.size() == path.size() && has_drive(name)) name.erase(0, 2);
  const std::wstring wide = widen(name);
  for (const wchar_t unit : wide) {
    if (kForbiddenInNames.find(static_cast<char16_t>(unit)) == std::u16string_view::npos) continue;
    return unit < 0x20
               ? "Windows allows no control characters in names"
               : std::string("Windows allows no '") + static_cast<char>(unit) + "' in names";
  }
  if (wide.size() > kMostUnits) return "Windows allows names of 255 characters at most";
  const size_t dot = name.find('.');
  std::string device = name.substr(0, dot);
  while (device.ends_with(' ')) device.pop_back();
  for (char& c : device) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  const bool port = device.size() == 4 &&
                    std::isdigit(static_cast<unsigned char>(device[3])) != 0 &&
                    (device.starts_with("COM") || device.starts_with("LPT"));
  const bool nothing = device == kNothing && name.size() > device.size();
  if (!port && !nothing &&
      std::find(std::begin(kDevices), std::end(kDevices), device) == std::end(kDevices))
    return {};
  return "Windows keeps the name " + device + " for a device, whatever follows after a dot";
}

size_t last_separator(std::string_view path) { return path.find_last_of("/\\"); }

bool is_absolute(std::string_view path) {
  return path.starts_with('/') || path.starts_with('\\') || has_drive(path);
}

bool has_drive(std::string_view path) {
  const bool letter =
      !path.empty() && ((path[0] >= 'a' && path[0] <= 'z') || (path[0] >= 'A' && path[0] <= 'Z'));
  return letter && path.size() >= 2 && path[1] == ':';
}

}  // namespace cairn::platform
