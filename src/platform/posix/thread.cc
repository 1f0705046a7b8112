#include "platform/thread.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>

namespace cairn::platform {

struct SignalsBlocked::State {
  sigset_t before;
};

SignalsBlocked::SignalsBlocked() : state_(std::make_unique<State>()) {
  sigset_t others;
  ::sigfillset(&others);
  for (const int own : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGABRT})
    ::sigdelset(&others, own);
  ::pthread_sigmask(SIG_BLOCK, &others, &state_->before);
}

SignalsBlocked::~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &state_->before, nullptr); }

void name_thread(const std::string& name) {
#ifdef __APPLE__
  ::pthread_setname_np(name.c_str());
#else
  ::pthread_setname_np(::pthread_self(), name.c_str());
#endif
}

void at_fork_in_child(void (*function)()) { ::pthread_atfork(nullptr, nullptr, function); }

void* load_library(const char* name) { return ::dlopen(name, RTLD_NOW | RTLD_LOCAL); }
void* find_symbol(void* library, const char* name) { return ::dlsym(library, name); }

std::string load_error() {
  const char* const text = ::dlerror();
  return text == nullptr ? std::string() : text;
}

}  // namespace cairn::platform
