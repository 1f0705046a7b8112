#pragma once

#include "base/error.h"

namespace cairn {

// Whether ERROR is what a CancelSource throws, which names no disk and no place.
inline bool says_only_cancelled(const Error& error) {
  return error.kind() == ErrorKind::kCancelled && error.message() == "cancelled";
}

}  // namespace cairn
