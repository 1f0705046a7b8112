#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "block/capability.h"

namespace cairn {

// A node that knows in which state its bytes are, as a server says it: what has been read of it may
// be kept for the next opening.
class ContentIdentity {
 public:
  static constexpr CapabilityTag kCapability{"content-identity"};

  struct State {
    std::string text;  // another one whenever the bytes are others
    // Where the text is no more than a time: seconds since 1970. Then a change within the same
    // second cannot be seen, and who asks has to wait until that second is long gone.
    std::optional<int64_t> modified = {};
  };
  // Nothing when the server does not say it. From any thread once the node is open.
  virtual std::optional<State> content_state() const = 0;

 protected:
  ~ContentIdentity() = default;
};

}  // namespace cairn
