#include "platform/thread.h"

#include "platform/windows/descriptors.h"

namespace cairn::platform {

// Windows sends signals to threads of its own.
struct SignalsBlocked::State {};
SignalsBlocked::SignalsBlocked() = default;
SignalsBlocked::~SignalsBlocked() = default;

void name_thread(const std::string&) {}

// No process is forked.
void at_fork_in_child(void (*)()) {}

void* load_library(const char* name) {
  return reinterpret_cast<void*>(::LoadLibraryW(widen(name).c_str()));
}

void* find_symbol(void* library, const char* name) {
  return reinterpret_cast<void*>(::GetProcAddress(static_cast<HMODULE>(library), name));
}

std::string load_error() { return "error " + std::to_string(::GetLastError()) + " of Windows"; }

}  // namespace cairn::platform
