#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "block/capability.h"

namespace cairn {

class Node;

// By what the content of a node is distinguished from other content, in words for people; what is
// empty is not known.
struct Identity {
  std::string object;  // the thing itself, under whatever name: "inode 17"
  std::string state;   // what changes when it is written: "modified 2026-02-03 04:05:06.7 UTC"
  // Where the state is no more than a time: seconds since 1970. A change within the same second
  // may then not be seen, and who needs to see it waits until that second is long gone.
  std::optional<int64_t> modified = {};
};

// Storage that knows whether its content is the same as some time ago: of a file, or as a server
// says it.
class Identified {
 public:
  static constexpr CapabilityTag kCapability{"identified"};

  // As of now, or of the time of opening where asking would be a request. From any thread; blocks
  // briefly at most; nothing throws.
  virtual Identity identity() const = 0;

 protected:
  ~Identified() = default;
};

// That of NODE; empty where it has not the capability.
Identity identity_of(const Node& node);

// How a state names the time SECONDS (since 1970) and NANOSECONDS at which a file was modified.
std::string modified_at(int64_t seconds, uint32_t nanoseconds);

}  // namespace cairn
