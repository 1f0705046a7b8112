#include "platform/terminal.h"

#include <algorithm>
#include <atomic>
#include <iterator>

#include "platform/memory.h"
#include "platform/windows/descriptors.h"

namespace cairn::platform {
namespace {

constexpr wchar_t kEndOfInput = 0x1A;  // Ctrl-Z
// For which an interrupt is waited for that has ended a read.
constexpr int kInterruptMilliseconds = 1000;

DWORD before = 0;                           // the mode of the console that is silent
std::atomic<HANDLE> silent_input{nullptr};  // set while BEFORE is not to change

HANDLE open_console(const wchar_t* name) {
  const HANDLE opened =
      ::CreateFileW(name, GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, nullptr,
                    OPEN_EXISTING, 0, nullptr);
  return opened != INVALID_HANDLE_VALUE ? opened : nullptr;
}

}  // namespace

SilentTerminal::SilentTerminal() {
  const HANDLE input = open_console(L"CONIN$");
  if (input == nullptr || ::GetConsoleMode(input, &before) == 0) {
    if (input != nullptr) ::CloseHandle(input);
    return;
  }
  silent_input.store(input);
  const DWORD silent = (before | ENABLE_LINE_INPUT | ENABLE_PROCESSED_INPUT) &
                       ~static_cast<DWORD>(ENABLE_ECHO_INPUT);
  ready_ = ::SetConsoleMode(input, silent) != 0;
  ::FlushConsoleInputBuffer(input);
}

SilentTerminal::~SilentTerminal() {
  restore_terminal();
  if (const HANDLE input = silent_input.exchange(nullptr)) ::CloseHandle(input);
}

void SilentTerminal::say(std::string_view text) const {
  const HANDLE output = open_console(L"CONOUT$");
  if (output == nullptr) return;
  const std::wstring wide = widen(std::string(text));
  DWORD written = 0;
  ::WriteConsoleW(output, wide.data(), static_cast<DWORD>(wide.size()), &written, nullptr);
  ::CloseHandle(output);
}

std::optional<std::string> SilentTerminal::read_line(size_t most,
                                                     const std::function<bool()>& stop) const {
  std::wstring typed;
  typed.reserve(most + 1);
  bool stopped = false;
  while (typed.size() < most && !typed.ends_with(L'\n')) {
    wchar_t part[128];
    DWORD got = 0;
    ::SetLastError(ERROR_SUCCESS);
    const auto room = static_cast<DWORD>(std::min(std::size(part), most - typed.size()));
    const bool read = ::ReadConsoleW(silent_input.load(), part, room, &got, nullptr) != 0;
    const bool interrupted = ::GetLastError() == ERROR_OPERATION_ABORTED;
    if (read) typed.append(part, got);
    wipe(part, sizeof part);
    // The thread to which the interrupt goes may still be on its way.
    for (int waited = 0; interrupted && !stop() && waited < kInterruptMilliseconds; ++waited)
      ::Sleep(1);
    stopped = interrupted && stop();
    if (stopped || !read || (got == 0 && !interrupted)) break;
  }
  say("\n");
  while (typed.ends_with(L'\n') || typed.ends_with(L'\r')) typed.pop_back();
  if (typed.starts_with(kEndOfInput)) typed.resize(0);
  std::string line = narrow(typed.data(), typed.size());
  wipe(typed.data(), typed.capacity() * sizeof(wchar_t));
  if (stopped) return std::nullopt;
  return line;
}

void restore_terminal() noexcept {
  const HANDLE input = silent_input.load();
  if (input == nullptr) return;
  // What is half typed is nobody's.
  ::FlushConsoleInputBuffer(input);
  ::SetConsoleMode(input, before);
}

}  // namespace cairn::platform
