#pragma once

#include <cstdint>
#include <string>

#include "base/options.h"

namespace cairn {

// One rate: AVERAGE units a second in the long run; MAX of them a second for at most MAX_LENGTH
// seconds on end. 0: no limit.
struct ThrottleRate {
  uint64_t average = 0;
  uint64_t max = 0;
  uint64_t max_length = 1;
};

struct ThrottleLimits {
  enum Kind { kBpsTotal, kBpsRead, kBpsWrite, kIopsTotal, kIopsRead, kIopsWrite, kKinds };
  ThrottleRate rates[kKinds];
  // A request counts as one operation per so many bytes, rounded up; 0: always as one.
  uint64_t iops_size = 0;

  // Whether there is a limit of this name, such as iops-total or bps-read-max.
  static bool knows(std::string name);
  // Takes x-iops-total, limits.iops-total and the like out of OPTIONS; what is not there stays.
  void update(Options& options);
  // Sets in OPTIONS, in the place of what update() would take, what makes the same limits again.
  void store(Options& options) const;
  // Throws kInvalid when the numbers contradict each other.
  void check() const;
  // Whether a read or a write counts against KIND.
  bool concerns(int kind, bool write) const {
    return rates[kind].average != 0 && (kind % 3 == 0 || (kind % 3 == 2) == write);
  }
  bool any() const;
};

// What counts, and who comes first. QEMU has the defaults alone.
struct ThrottlePolicy {
  bool count_discards = false;  // as writes
  bool count_flushes = false;   // as a write of no bytes
  bool by_bytes = false;        // members share bytes by their weights, rather than requests evenly

  // Takes count-discards, count-flushes and share (requests or bytes) out of OPTIONS. Throws
  // kInvalid.
  void update(Options& options);
};

}  // namespace cairn
