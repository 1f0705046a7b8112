#pragma once

#include <string>

#include "base/error.h"
#include "block/node.h"

namespace cairn {

// ERROR of a request to NODE, which is named where the error says only that the work was cancelled:
// the request had waited, for a server that does not answer or for its turn.
inline Error with_name(const Error& error, const Node& node) {
  const std::string& name = node.filename();
  if (error.kind() != ErrorKind::kCancelled || error.message().find(name) != std::string::npos)
    return error;
  return Error(error).context(name);
}

}  // namespace cairn
