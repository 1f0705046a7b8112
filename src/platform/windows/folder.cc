#include "platform/folder.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "platform/windows/opening.h"
// After the headers of Windows.
#include <winternl.h>

namespace cairn::platform {
namespace {

// Classes and flags of Windows 10, which the headers lack.
constexpr unsigned kDispositionEx = 64, kRenameEx = 65;
constexpr ULONG kDelete = 1, kDeleteNow = 2, kDeleteWriteProtected = 16;
constexpr ULONG kReplace = 1, kReplaceNow = 2, kReplaceWriteProtected = 64;

FILE_INFORMATION_CLASS class_of(unsigned number) {
  FILE_INFORMATION_CLASS found{};
  static_assert(sizeof found == sizeof number);
  std::memcpy(&found, &number, sizeof found);
  return found;
}

int fail_status(NTSTATUS status) {
  constexpr auto kFileIsADirectory = static_cast<NTSTATUS>(0xc00000ba);
  constexpr auto kNotADirectory = static_cast<NTSTATUS>(0xc0000103);
  constexpr auto kNotSameDevice = static_cast<NTSTATUS>(0xc00000d4);
  // It has been removed, and somebody still has it open.
  constexpr auto kDeletePending = static_cast<NTSTATUS>(0xc0000056);
  if (status == kFileIsADirectory) return fail_as(EISDIR);
  if (status == kNotADirectory) return fail_as(ENOTDIR);
  if (status == kNotSameDevice) return fail_as(EXDEV);
  if (status == kDeletePending) return fail_as(ENOENT);
  return fail(RtlNtStatusToDosError(status));
}

// Nothing that Windows takes for more than a name: a path, or a stream of a file.
bool is_single_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of("/\\:") == std::string::npos;
}

bool is_plain_path(const std::string& path) {
  for (size_t at = 0; !path.empty() && at <= path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    if (!is_single_name(path.substr(at, end - at))) return false;
    at = end + 1;
  }
  return true;
}

HANDLE open_name(int folder, const std::string& name, Opening opening) {
  const HANDLE above = handle_of(folder);
  if (above == INVALID_HANDLE_VALUE) return above;
  if (!is_single_name(name)) {
    fail_as(EINVAL);
    return INVALID_HANDLE_VALUE;
  }
  opening.options |= kReparsePoint;
  return open_relative(above, widen(name), opening);
}

ULONG disposition_of(int flags) {
  if ((flags & O_CREAT) != 0) {
    if ((flags & O_EXCL) != 0) return FILE_CREATE;
    return (flags & O_TRUNC) != 0 ? FILE_OVERWRITE_IF : FILE_OPEN_IF;
  }
  return (flags & O_TRUNC) != 0 ? FILE_OVERWRITE : FILE_OPEN;
}

Opening opening_of(int flags) {
  Opening opening{.access = access_of(flags), .disposition = disposition_of(flags)};
  if ((flags & O_PATH) != 0) opening.access = FILE_READ_ATTRIBUTES | FILE_TRAVERSE;
  if ((flags & O_DIRECTORY) != 0) opening.options |= FILE_DIRECTORY_FILE;
  if ((flags & O_CREAT) != 0) opening.options |= FILE_NON_DIRECTORY_FILE;
  return opening;
}

// The descriptor of what was opened with FLAGS.
int keep(Handle& handle, int flags, bool links_too) {
  if (!handle) return -1;
  const auto found = status_of_handle(handle.get());
  if (!found) return -1;
  if (found->type == FileType::kLink && !links_too) return fail_as(ELOOP);
  const bool looking = (flags & (O_DIRECTORY | O_PATH)) != 0;
  if (found->is_directory() && !looking) return fail_as(EISDIR);
  const int fd =
      add_descriptor(Descriptor::Kind::kFile, reinterpret_cast<uintptr_t>(handle.release()));
  if (fd < 0) return -1;
  Descriptor* const place = find_descriptor(fd);
  place->writable = (flags & (O_WRONLY | O_RDWR)) != 0;
  if ((flags & O_CREAT) != 0 && found->size == 0) make_sparse(*place);
  return fd;
}

// The path of an open file, as the system has it.
std::wstring final_path_of(HANDLE handle) {
  std::wstring name(32768, L'\0');
  const DWORD length = ::GetFinalPathNameByHandleW(
      handle, name.data(), static_cast<DWORD>(name.size()), VOLUME_NAME_DOS);
  name.resize(length > name.size() ? 0 : length);
  return name;
}

bool is_below(HANDLE handle, HANDLE folder) {
  std::wstring top = final_path_of(folder);
  const std::wstring place = final_path_of(handle);
  if (top.empty() || place == top) return !top.empty();
  if (!top.ends_with(L'\\')) top += L'\\';
  return place.starts_with(top);
}

// Each part is opened in the one before, past links nowhere.
int open_without_links(int folder, const std::string& path, int flags) {
  Handle at(open_relative(handle_of(folder), L"",
                          {.access = FILE_READ_ATTRIBUTES | FILE_TRAVERSE | SYNCHRONIZE,
                           .options = FILE_DIRECTORY_FILE}));
  size_t begin = 0;
  for (size_t slash; at && (slash = path.find('/', begin)) != std::string::npos;
       begin = slash + 1) {
    at.reset(open_relative(at.get(), widen(path.substr(begin, slash - begin)),
                           {.access = FILE_READ_ATTRIBUTES | FILE_TRAVERSE | SYNCHRONIZE,
                            .options = FILE_DIRECTORY_FILE | kReparsePoint}));
    const auto found = at ? status_of_handle(at.get()) : std::nullopt;
    if (found && found->type == FileType::kLink) return fail_as(ELOOP);
  }
  if (!at) return -1;
  Opening last = opening_of(flags);
  last.options |= kReparsePoint;
  Handle found(open_relative(at.get(), widen(path.substr(begin)), last));
  return keep(found, flags, (flags & O_NOFOLLOW) != 0 && (flags & O_PATH) != 0);
}

// The file of HANDLE goes: its name now, where the system can do that.
NTSTATUS dispose(HANDLE handle) {
  IO_STATUS_BLOCK done{};
  ULONG flags = kDelete | kDeleteNow | kDeleteWriteProtected;
  const NTSTATUS status =
      NtSetInformationFile(handle, &done, &flags, sizeof flags, class_of(kDispositionEx));
  if (status >= 0) return status;
  // File systems, and systems, that do not know it: the name goes with the last descriptor.
  BOOLEAN yes = TRUE;
  return NtSetInformationFile(handle, &done, &yes, sizeof yes, FileDispositionInformation);
}

int remove_as(int folder, const std::string& name, ULONG options, bool directory) {
  const Handle found(open_name(
      folder, name, {.access = DELETE | FILE_READ_ATTRIBUTES | SYNCHRONIZE, .options = options}));
  if (!found) return -1;
  const auto status = status_of_handle(found.get());
  if (!status) return -1;
  if (!directory && status->is_directory()) return fail_as(EISDIR);
  const NTSTATUS result = dispose(found.get());
  return result < 0 ? fail_status(result) : 0;
}

}  // namespace

HANDLE open_relative(HANDLE folder, std::wstring_view name, const Opening& opening) {
  std::wstring text(name);
  std::replace(text.begin(), text.end(), L'/', L'\\');
  UNICODE_STRING native{};
  native.Buffer = text.data();
  native.Length = native.MaximumLength = static_cast<USHORT>(text.size() * sizeof(wchar_t));
  if (text.size() * sizeof(wchar_t) > 0xfff0) {
    fail_as(ENAMETOOLONG);
    return INVALID_HANDLE_VALUE;
  }
  OBJECT_ATTRIBUTES object{};
  InitializeObjectAttributes(&object, &native, OBJ_CASE_INSENSITIVE, folder, nullptr);
  HANDLE handle = INVALID_HANDLE_VALUE;
  IO_STATUS_BLOCK done{};
  const NTSTATUS status =
      NtCreateFile(&handle, opening.access | SYNCHRONIZE | FILE_READ_ATTRIBUTES, &object, &done,
                   nullptr, FILE_ATTRIBUTE_NORMAL, opening.sharing, opening.disposition,
                   opening.options | FILE_SYNCHRONOUS_IO_NONALERT, nullptr, 0);
  if (status >= 0) return handle;
  fail_status(status);
  return INVALID_HANDLE_VALUE;
}

int open_folder(const std::string& path) {
  return platform::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int open_in(int folder, const std::string& name, int flags, unsigned) {
  Handle found(open_name(folder, name, opening_of(flags)));
  return keep(found, flags, false);
}

std::optional<FileStatus> status_in(int folder, const std::string& name) {
  const Handle found(open_name(folder, name, {.access = FILE_READ_ATTRIBUTES}));
  return found ? status_of_handle(found.get()) : std::nullopt;
}

std::optional<std::vector<std::string>> names_in(int folder, size_t most) {
  const Handle list(
      open_relative(handle_of(folder), L"",
                    {.access = FILE_LIST_DIRECTORY | SYNCHRONIZE, .options = FILE_DIRECTORY_FILE}));
  if (!list) return std::nullopt;
  std::vector<std::string> names;
  alignas(8) std::byte buffer[65536];
  while (::GetFileInformationByHandleEx(list.get(), FileIdBothDirectoryInfo, buffer,
                                        sizeof buffer) != 0) {
    const auto* entry = reinterpret_cast<const FILE_ID_BOTH_DIR_INFO*>(buffer);
    while (true) {
      const std::string name = narrow(entry->FileName, entry->FileNameLength / sizeof(wchar_t));
      if (name != "." && name != "..") names.push_back(name);
      if (names.size() > most) return names;
      if (entry->NextEntryOffset == 0) break;
      entry = reinterpret_cast<const FILE_ID_BOTH_DIR_INFO*>(
          reinterpret_cast<const std::byte*>(entry) + entry->NextEntryOffset);
    }
  }
  if (::GetLastError() == ERROR_NO_MORE_FILES) return names;
  fail();
  return std::nullopt;
}

int make_directory_in(int folder, const std::string& name, unsigned) {
  const Handle made(open_name(folder, name,
                              {.access = FILE_LIST_DIRECTORY | SYNCHRONIZE,
                               .disposition = FILE_CREATE,
                               .options = FILE_DIRECTORY_FILE}));
  return made ? 0 : -1;
}

int remove_in(int folder, const std::string& name) { return remove_as(folder, name, 0, false); }

int remove_directory_in(int folder, const std::string& name) {
  return remove_as(folder, name, FILE_DIRECTORY_FILE, true);
}

int rename_in(int from_folder, const std::string& from, int to_folder, const std::string& to,
              Overwrite overwrite) {
  const Handle file(open_name(from_folder, from, {.access = DELETE | SYNCHRONIZE}));
  if (!file) return -1;
  if (!is_single_name(to)) return fail_as(EINVAL);
  const std::wstring name = widen(to);
  // Before the name the structure is the same for both classes: flags, or one yes or no.
  struct Head {
    ULONG flags;
    HANDLE folder;
    ULONG name_bytes;
  };
  const size_t bytes = name.size() * sizeof(wchar_t);
  std::vector<std::byte> request(offsetof(Head, name_bytes) + sizeof(ULONG) + bytes +
                                 sizeof(wchar_t));
  const bool replace = overwrite == Overwrite::kYes;
  Head head{.flags = replace ? kReplace | kReplaceNow | kReplaceWriteProtected : 0,
            .folder = handle_of(to_folder),
            .name_bytes = static_cast<ULONG>(bytes)};
  const size_t head_bytes = offsetof(Head, name_bytes) + sizeof(ULONG);
  std::memcpy(request.data(), &head, head_bytes);
  std::memcpy(request.data() + head_bytes, name.data(), bytes);
  IO_STATUS_BLOCK done{};
  const auto length = static_cast<ULONG>(request.size());
  NTSTATUS status =
      NtSetInformationFile(file.get(), &done, request.data(), length, class_of(kRenameEx));
  if (status >= 0) return 0;
  constexpr auto kCollision = static_cast<NTSTATUS>(0xc0000035);
  if (status == kCollision) return fail_as(EEXIST);
  head.flags = replace ? 1 : 0;
  std::memcpy(request.data(), &head, head_bytes);
  status = NtSetInformationFile(file.get(), &done, request.data(), length, FileRenameInformation);
  return status < 0 ? fail_status(status) : 0;
}

int open_below(int folder, const std::string& path, int flags, Links links, unsigned) {
  if (!is_plain_path(path)) return fail_as(EINVAL);
  if (handle_of(folder) == INVALID_HANDLE_VALUE) return -1;
  if (links == Links::kRefuse) return open_without_links(folder, path, flags);
  // Where the path has led is looked at then.
  Handle found(open_relative(handle_of(folder), widen(path), opening_of(flags)));
  if (found && !is_below(found.get(), handle_of(folder))) return fail_as(EXDEV);
  return keep(found, flags, true);
}

std::optional<FileStatus> status_below(int folder, const std::string& path, Links links) {
  const int fd =
      open_below(folder, path, O_PATH | (links == Links::kRefuse ? O_NOFOLLOW : 0), links);
  if (fd < 0) return std::nullopt;
  const auto found = status_of(fd);
  platform::close(fd);
  return found;
}

int set_modified_in(int folder, const std::string& name, int64_t seconds) {
  const Handle found(open_name(folder, name, {.access = FILE_WRITE_ATTRIBUTES | SYNCHRONIZE}));
  const FILETIME time = filetime_of(seconds);
  if (!found) return -1;
  return ::SetFileTime(found.get(), nullptr, nullptr, &time) != 0 ? 0 : fail();
}

int set_modified(int fd, int64_t seconds) {
  const FILETIME time = filetime_of(seconds);
  return ::SetFileTime(handle_of(fd), nullptr, nullptr, &time) != 0 ? 0 : fail();
}

const bool kSyncsVolumes = false;
int sync_volume(int) { return 0; }

}  // namespace cairn::platform
