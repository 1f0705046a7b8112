#pragma once

#include <chrono>
#include <csignal>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/session.h"

namespace cairn::cli {

// Takes "--progress json[,fd=N]" (or "--progress=json…") out of WORDS and gives the descriptor: 2
// when none is named. Nothing when it is not there. Throws UsageError.
std::optional<int> take_json_progress(std::vector<char*>& words);

// Shows how far a job is: QEMU's percent line, a bar on a terminal for people, or lines for
// programs (docs/progress.md). Update may be called from any thread.
class Progress {
 public:
  // Whether zero percent is drawn before the first update.
  enum class Start {
    kAtOnce,
    kWithFirstUpdate,
    kWhenSlow,       // nothing for people unless the work takes longer than a second
    kBesideResults,  // the same, and nothing on a terminal that gets the results meanwhile
  };
  // STEP: percent between prints of QEMU's line.
  Progress(const Session& session, bool wanted, bool quiet, double step,
           Start start = Start::kAtOnce);
  ~Progress();
  Progress(const Progress&) = delete;

  // TOTAL is 0 while it is not known.
  void update(uint64_t done, uint64_t total);
  // What follows counts from nothing again.
  void begin_phase(std::string_view name);
  // Ends the line; nothing is printed afterwards.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;
  enum class Style { kNone, kPercent, kBar, kLines };
  void enter(std::string_view phase);
  void report(std::string_view phase, uint64_t done, uint64_t total);
  void draw(double percent, uint64_t done, uint64_t total);
  void draw_amount(uint64_t done);
  void line(std::string_view state, bool must);
  Style style_ = Style::kNone;
  double step_;
  double shown_ = -1;
  std::function<void()> detach_;
  std::string own_phase_;  // of the verb: what update() is about
  bool drawn_ = false;
  Clock::time_point quiet_until_{};  // nothing is drawn before
  // For programs:
  int fd_ = -1;
  std::string phase_;
  uint64_t done_ = 0;
  uint64_t total_ = 0;
  Clock::time_point started_{};
  Clock::time_point told_{};
  Clock::time_point rate_at_{};  // begin of the window that the rate is taken from
  uint64_t rate_done_ = 0;
  double rate_ = 0;
  std::mutex mutex_;
};

}  // namespace cairn::cli
