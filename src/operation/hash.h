#pragma once

#include <cstdint>
#include <string>

#include "operation/caller.h"
#include "operation/nodes.h"

namespace cairn::operation {

struct HashOptions {
  std::string algorithm = "sha256";
  std::string snapshot = {};  // the internal snapshot that is read; empty: the disk
  bool quiet = false;         // no notes
};

struct Hashed {
  std::string digest;  // in hexadecimal
  std::string format;  // of the image
  uint64_t bytes = 0;  // of the disk
};

// Throws kInvalid unless ALGORITHM is known.
void check_algorithm(const std::string& algorithm);

// The digest of all bytes of the disk in the image of REQUEST, which must not change meanwhile.
Task<Hashed> hash(Caller& caller, OpenRequest request, HashOptions options);

}  // namespace cairn::operation
