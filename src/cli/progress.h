#pragma once

#include <csignal>
#include <cstdint>
#include <mutex>

#include "cli/session.h"

namespace cairn::cli {

// Shows how far a job is: QEMU's percent line, or a bar on a terminal for people. Update may be
// called from any thread.
class Progress {
 public:
  // STEP: percent between prints of QEMU's line.
  Progress(const Session& session, bool wanted, bool quiet, double step);
  ~Progress();
  Progress(const Progress&) = delete;

  void update(uint64_t done, uint64_t total);
  // Ends the line; nothing is printed afterwards.
  void finish();

 private:
  enum class Style { kNone, kPercent, kBar };
  void draw(double percent, uint64_t done, uint64_t total);
  Style style_ = Style::kNone;
  double step_;
  double shown_ = -1;
  bool drawn_ = false;
  std::mutex mutex_;
};

}  // namespace cairn::cli
