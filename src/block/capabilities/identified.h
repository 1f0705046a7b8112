#pragma once

#include <cstdint>
#include <string>

#include "block/capability.h"

namespace cairn {

class Node;

// By what the content of a node is distinguished from other content, in words for people; what is
// empty is not known.
struct Identity {
  std::string object;  // the thing itself, under whatever name: "inode 17"
  std::string state;   // what changes when it is written: "modified 2026-02-03 04:05:06.7 UTC"
};

// Storage that knows whether its content is the same as some time ago.
class Identified {
 public:
  static constexpr CapabilityTag kCapability{"identified"};

  // As of now, or of the time of opening where asking would be a request. From any thread; blocks
  // briefly at most; nothing throws.
  virtual Identity identity() const = 0;

 protected:
  ~Identified() = default;
};

// Without the capability the state of a ContentIdentity, where NODE has that.
Identity identity_of(const Node& node);

// How a state names the time SECONDS (since 1970) and NANOSECONDS at which a file was modified.
std::string modified_at(int64_t seconds, uint32_t nanoseconds);

}  // namespace cairn
