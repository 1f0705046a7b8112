#pragma once

#include <cstdint>
#include <functional>

#include "async/task.h"
#include "base/options.h"
#include "block/capability.h"

namespace cairn {

class Node;

struct AmendRequest {
  Options options = {};  // known to the driver's amend schema
  bool force = false;    // do what could lose data
  // Called now and then, from any worker.
  std::function<void(uint64_t done, uint64_t total)> progress = {};
};

// An image whose options can be changed while it exists.
class Amendable {
 public:
  static constexpr CapabilityTag kCapability{"amendable"};

  // Changes the options. The guest sees the same disk at every moment; after a failure the image
  // has the old options or the new ones, each option by itself. From any worker, one call at a
  // time; requests may be under way.
  virtual Task<void> amend(AmendRequest request) = 0;

 protected:
  ~Amendable() = default;
};

// Throws kUnsupported that names the driver where NODE is not amendable.
Task<void> amend_image(Node& node, AmendRequest request);

}  // namespace cairn
