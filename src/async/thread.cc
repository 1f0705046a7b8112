#include "async/thread.h"

#include <system_error>
#include <utility>

#include "base/error.h"
#include "platform/thread.h"

namespace cairn {
std::thread start_thread(std::string name, std::function<void()> work) {
  const platform::SignalsBlocked blocked;
  try {
    return std::thread([name = std::move(name), work = std::move(work)] {
      platform::name_thread(name);
      work();
    });
  } catch (const std::system_error& error) {
    throw Error::system(error.code().value(), "Could not start a thread");
  }
}

}  // namespace cairn
