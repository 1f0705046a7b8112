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

// Shows the progress of a job: QEMU's percent line, a bar on a terminal for people, or lines for
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
  // A server is WAITING for; TEXT says so. Shown in the line, or to programs. False where this
  // progress is for nobody. From any thread.
  bool wait(const Servers::Waiting& waiting, const std::string& text);
  // No server is waited for: takes back what was shown.
  void go_on();
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
  void wipe_wait();
  Style style_ = Style::kNone;
  double step_;
  double shown_ = -1;
  std::function<void()> detach_;
  WaitNotes* notes_ = nullptr;
  std::string own_phase_;  // of the verb: what update() is about
  bool drawn_ = false;
  bool wait_drawn_ = false;  // instead of the bar or the percent
  std::optional<Servers::Waiting> waiting_;
  Clock::time_point waited_{};       // when programs last got a line
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
