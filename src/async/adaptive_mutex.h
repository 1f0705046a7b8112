#pragma once

#include <pthread.h>

namespace cairn {

// A mutex for critical sections of some ten instructions that several workers meet in at a high
// rate: it spins for a moment before it asks the kernel to wait, where the system has such. As
// std::mutex otherwise.
class AdaptiveMutex {
 public:
  AdaptiveMutex() = default;
  AdaptiveMutex(const AdaptiveMutex&) = delete;
  ~AdaptiveMutex() { ::pthread_mutex_destroy(&mutex_); }
  void lock() { ::pthread_mutex_lock(&mutex_); }
  void unlock() { ::pthread_mutex_unlock(&mutex_); }
  bool try_lock() { return ::pthread_mutex_trylock(&mutex_) == 0; }

 private:
#ifdef PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP
  pthread_mutex_t mutex_ = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP;
#else
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
#endif
};

}  // namespace cairn
