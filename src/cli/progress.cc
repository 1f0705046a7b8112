#include "cli/progress.h"

#include <unistd.h>

#include <cstdio>
#include <string>

#include "base/size.h"

namespace cairn::cli {
namespace {

volatile std::sig_atomic_t report_wanted = 0;
void want_report(int) { report_wanted = 1; }

}  // namespace

Progress::Progress(const Session& session, bool wanted, bool quiet, double step) : step_(step) {
  if (!quiet) {
    if (session.for_people() && ::isatty(STDERR_FILENO))
      style_ = Style::kBar;
    else if (wanted)
      style_ = Style::kPercent;
  }
  if (style_ == Style::kNone) {
    struct sigaction action = {};
    action.sa_handler = want_report;
    action.sa_flags = SA_RESTART;
    ::sigaction(SIGUSR1, &action, nullptr);
  }
  if (style_ == Style::kPercent) draw(0, 0, 0);
}

Progress::~Progress() { finish(); }

void Progress::update(uint64_t done, uint64_t total) {
  const std::lock_guard lock(mutex_);
  const double percent =
      total == 0 ? 100 : 100.0 * static_cast<double>(done) / static_cast<double>(total);
  if (style_ == Style::kNone) {
    if (report_wanted != 0) {
      report_wanted = 0;
      std::fprintf(stderr, "    (%3.2f/100%%)\n", percent);
    }
    return;
  }
  if (percent < shown_ + step_ && !(percent >= 100 && shown_ < 100)) return;
  draw(percent, done, total);
}

void Progress::draw(double percent, uint64_t done, uint64_t total) {
  shown_ = percent;
  drawn_ = true;
  if (style_ == Style::kPercent) {
    std::printf("    (%3.2f/100%%)\r", percent);
    std::fflush(stdout);
    return;
  }
  constexpr int kWidth = 40;
  const int filled = static_cast<int>(percent / 100 * kWidth);
  std::string bar(static_cast<size_t>(filled), '#');
  bar.resize(kWidth, '.');
  std::fprintf(stderr, "\r[%s] %5.1f %%  %s of %s ", bar.c_str(), percent, human_size(done).c_str(),
               human_size(total).c_str());
  std::fflush(stderr);
}

void Progress::finish() {
  const std::lock_guard lock(mutex_);
  if (style_ == Style::kPercent) {
    std::printf("\n");
    std::fflush(stdout);
  } else if (style_ == Style::kBar && drawn_) {
    std::fprintf(stderr, "\n");
  }
  style_ = Style::kNone;
}

}  // namespace cairn::cli
