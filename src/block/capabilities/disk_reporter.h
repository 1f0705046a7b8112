#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "block/capability.h"

namespace cairn {

// Something is wrong with the disks of a set.
struct DiskReport {
  enum class Request : uint8_t { kRead, kWrite, kFlush };
  std::string disk;  // name of the node that failed; empty: too few disks are left that agree
  Request request = Request::kRead;
  uint64_t offset = 0;  // bytes
  uint64_t length = 0;
  std::optional<std::string> error = {};  // nothing: it holds something else than most
};

// A node over several disks that works while some of them fail, and reports that.
class DiskReporter {
 public:
  static constexpr CapabilityTag kCapability{"disk-reporter"};

  // LISTENER is given every report from then on, from any worker. Once, before the first request.
  using Listener = std::function<void(const DiskReport&)>;
  virtual void report_to(Listener listener) = 0;

 protected:
  ~DiskReporter() = default;
};

}  // namespace cairn
