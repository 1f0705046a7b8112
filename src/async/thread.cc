#include "async/thread.h"

#include <pthread.h>
#include <signal.h>

#include <system_error>
#include <utility>

#include "base/error.h"

namespace cairn {
namespace {

// As long as it is there, signals from elsewhere wait, and threads that are started inherit that.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t others;
    ::sigfillset(&others);
    for (const int own : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGABRT})
      ::sigdelset(&others, own);
    ::pthread_sigmask(SIG_BLOCK, &others, &before_);
  }
  ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

std::thread start_thread(std::string name, std::function<void()> work) {
  const SignalsBlocked blocked;
  try {
    return std::thread([name = std::move(name), work = std::move(work)] {
      ::pthread_setname_np(::pthread_self(), name.c_str());
      work();
    });
  } catch (const std::system_error& error) {
    throw Error::system(error.code().value(), "Could not start a thread");
  }
}

}  // namespace cairn
