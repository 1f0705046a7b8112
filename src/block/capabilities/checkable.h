#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "async/task.h"
#include "block/capability.h"

namespace cairn {

class Node;

struct CheckRequest {
  enum class Repair { kNone, kLeaks, kAll };
  Repair repair = Repair::kNone;
  // A line per finding, without a newline. From any worker, one call at a time.
  std::function<void(std::string_view)> report = {};
  // The same for what kept a step from being done: to be printed as the program's own error.
  std::function<void(std::string_view)> complain = {};
  // Also what goes beyond the established checks of a format: findings in words, space that is
  // lost, counts of clusters, repairs that raise the version. check_image() sets it as the Profile
  // says.
  bool extensions = true;
};

// One finding count of a check; lines of detail go to the CheckRequest's report function.
struct CheckResult {
  uint64_t corruptions = 0, leaks = 0, check_errors = 0;
  uint64_t corruptions_fixed = 0, leaks_fixed = 0;
  uint64_t image_end_offset = 0;
  uint64_t total_clusters = 0, allocated_clusters = 0, fragmented_clusters = 0,
           compressed_clusters = 0;
  // Of a check without repair: what a repair would do, a line each, and in which mode.
  std::vector<std::string> plan = {};
};

// A format whose metadata can be checked for consistency.
class Checkable {
 public:
  static constexpr CapabilityTag kCapability{"checkable"};

  // Looks at all metadata, and repairs what the request allows. What was repaired before a failure
  // stays repaired; without repair nothing is changed. From any worker, one call at a time; no
  // other request may be under way.
  virtual Task<CheckResult> check(CheckRequest request) = 0;

 protected:
  ~Checkable() = default;
};

// Throws kUnsupported where NODE cannot be checked.
Task<CheckResult> check_image(Node& node, CheckRequest request);

}  // namespace cairn
