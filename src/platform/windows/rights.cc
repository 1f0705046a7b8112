#include <cerrno>
#include <memory>
#include <vector>

#include "platform/folder.h"
#include "platform/windows/opening.h"
// After the headers of Windows.
#include <aclapi.h>
#include <sddl.h>

namespace cairn::platform {
namespace {

constexpr ACCESS_MASK kChanges = FILE_WRITE_DATA | FILE_APPEND_DATA | FILE_DELETE_CHILD | DELETE |
                                 WRITE_DAC | WRITE_OWNER | GENERIC_WRITE | GENERIC_ALL;

struct LocalMemory {
  void operator()(void* memory) const { ::LocalFree(memory); }
};
using LocalDescriptor = std::unique_ptr<void, LocalMemory>;

// The user who runs the program, as a SID; empty: it cannot be known.
std::vector<std::byte> user() {
  HANDLE token = nullptr;
  if (::OpenProcessToken(::GetCurrentProcess(), TOKEN_QUERY, &token) == 0) return {};
  const Handle owned(token);
  DWORD bytes = 0;
  ::GetTokenInformation(token, TokenUser, nullptr, 0, &bytes);
  std::vector<std::byte> found(bytes);
  if (bytes == 0 || ::GetTokenInformation(token, TokenUser, found.data(), bytes, &bytes) == 0)
    return {};
  PSID const sid = reinterpret_cast<const TOKEN_USER*>(found.data())->User.Sid;
  const auto* const begin = static_cast<const std::byte*>(sid);
  return {begin, begin + ::GetLengthSid(sid)};
}

// Administrators and the system itself may do everything in any case.
bool is_trusted(PSID sid, std::vector<std::byte>& user) {
  return (!user.empty() && ::EqualSid(sid, user.data()) != 0) ||
         ::IsWellKnownSid(sid, WinBuiltinAdministratorsSid) != 0 ||
         ::IsWellKnownSid(sid, WinLocalSystemSid) != 0 ||
         ::IsWellKnownSid(sid, WinCreatorOwnerSid) != 0 ||
         ::IsWellKnownSid(sid, WinCreatorOwnerRightsSid) != 0;
}

bool others_change(PACL list, std::vector<std::byte>& user) {
  // No list: everybody may do everything.
  if (list == nullptr) return true;
  for (DWORD at = 0; at < list->AceCount; ++at) {
    void* entry = nullptr;
    if (::GetAce(list, at, &entry) == 0) return true;
    auto* const allowed = static_cast<ACCESS_ALLOWED_ACE*>(entry);
    if (allowed->Header.AceType != ACCESS_ALLOWED_ACE_TYPE ||
        (allowed->Header.AceFlags & INHERIT_ONLY_ACE) != 0 || (allowed->Mask & kChanges) == 0)
      continue;
    if (!is_trusted(&allowed->SidStart, user)) return true;
  }
  return false;
}

}  // namespace

std::optional<Rights> rights_of(int fd) {
  PSID owner = nullptr;
  PACL list = nullptr;
  PSECURITY_DESCRIPTOR memory = nullptr;
  const DWORD error = ::GetSecurityInfo(handle_of(fd), SE_FILE_OBJECT,
                                        OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION,
                                        &owner, nullptr, &list, nullptr, &memory);
  if (error != ERROR_SUCCESS) {
    fail(error);
    return std::nullopt;
  }
  const LocalDescriptor kept(memory);
  std::vector<std::byte> self = user();
  if (owner == nullptr || !is_trusted(owner, self)) return Rights::kOfOthers;
  return others_change(list, self) ? Rights::kOwnButOthersWrite : Rights::kOwn;
}

int copy_rights(int folder, const std::string& name, int fd) {
  const Handle old(open_relative(
      handle_of(folder), widen(name),
      {.access = READ_CONTROL | FILE_READ_ATTRIBUTES | SYNCHRONIZE, .options = kReparsePoint}));
  if (!old) return -1;
  PACL list = nullptr;
  PSECURITY_DESCRIPTOR memory = nullptr;
  const DWORD error = ::GetSecurityInfo(old.get(), SE_FILE_OBJECT, DACL_SECURITY_INFORMATION,
                                        nullptr, nullptr, &list, nullptr, &memory);
  if (error != ERROR_SUCCESS) return fail(error);
  const LocalDescriptor kept(memory);
  // A handle of its own: that of the file need not have the right to change rights.
  const Handle changed(::ReOpenFile(handle_of(fd), WRITE_DAC | READ_CONTROL, kSharedByAll, 0));
  if (!changed) return fail();
  const DWORD result = ::SetSecurityInfo(changed.get(), SE_FILE_OBJECT, DACL_SECURITY_INFORMATION,
                                         nullptr, nullptr, list, nullptr);
  return result == ERROR_SUCCESS ? 0 : fail(result);
}

int make_directory(const std::string& path, unsigned mode) {
  if ((mode & 077) != 0)
    return ::CreateDirectoryW(native_path(path).c_str(), nullptr) != 0 ? 0 : fail();
  // For its owner, administrators and the system; what is made in it later as well.
  std::vector<std::byte> self = user();
  LPWSTR text = nullptr;
  if (self.empty() || ::ConvertSidToStringSidW(self.data(), &text) == 0) return fail();
  const std::unique_ptr<void, LocalMemory> kept_text(text);
  const std::wstring rule =
      L"D:P(A;OICI;FA;;;" + std::wstring(text) + L")(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)";
  PSECURITY_DESCRIPTOR memory = nullptr;
  if (::ConvertStringSecurityDescriptorToSecurityDescriptorW(rule.c_str(), SDDL_REVISION_1, &memory,
                                                             nullptr) == 0)
    return fail();
  const LocalDescriptor kept(memory);
  SECURITY_ATTRIBUTES attributes{
      .nLength = sizeof attributes, .lpSecurityDescriptor = memory, .bInheritHandle = FALSE};
  return ::CreateDirectoryW(native_path(path).c_str(), &attributes) != 0 ? 0 : fail();
}

}  // namespace cairn::platform
