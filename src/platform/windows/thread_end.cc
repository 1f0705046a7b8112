// What a thread's own objects do when it ends. The compiler's library for Windows frees their
// memory first and calls their destructors then; this runs the destructors first. Keys are looked
// at in the order in which they were made: this one is made before the first object of a thread is.
#include <pthread.h>

#include <memory>
#include <utility>

namespace {

struct Ending {
  void (*function)(void*);
  void* object;
  std::unique_ptr<Ending> earlier;
};

void run(void* last) {
  std::unique_ptr<Ending> each(static_cast<Ending*>(last));
  while (each) {
    each->function(each->object);
    each = std::move(each->earlier);
  }
}

pthread_key_t key;
__attribute__((constructor(101))) void make_key() { ::pthread_key_create(&key, run); }

}  // namespace

extern "C" int __cxa_thread_atexit(void (*function)(void*), void* object, void*) noexcept {
  auto ending = std::make_unique<Ending>();
  ending->function = function;
  ending->object = object;
  ending->earlier.reset(static_cast<Ending*>(::pthread_getspecific(key)));
  return ::pthread_setspecific(key, ending.release());
}
