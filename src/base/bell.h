#pragma once

#include <cerrno>

#include "base/error.h"
#include "platform/wake.h"

namespace cairn {

// A wake-up that is there. Throws what the system says where it has none left.
class Bell : public platform::Wake {
 public:
  Bell() {
    if (descriptor() < 0) throw Error::system(errno, "Could not make a wake-up");
  }
};

}  // namespace cairn
