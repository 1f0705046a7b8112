#include "cli/progress.h"

#include <fmt/core.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <string>

#include "base/size.h"
#include "cli/escape.h"
#include "cli/system.h"
#include "cli/waiting.h"
#include "platform/file.h"
#include "platform/system.h"
#include "qemu/json_order.h"

namespace cairn::cli {
namespace {

using namespace std::chrono_literals;
constexpr auto kBetweenLines = 100ms;
constexpr auto kRateWindow = 1s;
// Work that takes no longer shows no bar where Start::kWhenSlow was asked for.
constexpr auto kSlow = 1s;
constexpr auto kBetweenWaits = 1s;
// So that a line for programs stays short.
constexpr size_t kMostServerBytes = 100;

int descriptor_of(std::string_view text) {
  if (text == "json") return STDERR_FILENO;
  constexpr std::string_view kFd = "json,fd=";
  int fd = -1;
  const char* end = text.data() + text.size();
  if (text.starts_with(kFd)) {
    const auto [stop, error] = std::from_chars(text.data() + kFd.size(), end, fd);
    if (error != std::errc() || stop != end) fd = -1;
  }
  if (fd < 0)
    throw UsageError{"Invalid progress option '" + std::string(text) + "': json[,fd=N] is known"};
  if (!is_open(fd)) throw UsageError{fmt::format("Descriptor {} of --progress is not open", fd)};
  return fd;
}

}  // namespace

std::optional<int> take_json_progress(std::vector<char*>& words) {
  std::optional<int> fd;
  for (size_t i = 1; i < words.size(); ++i) {
    const std::string_view word = words[i];
    if (word == "--") break;
    std::string_view value;
    size_t count = 1;
    if (word.starts_with("--progress=")) {
      value = word.substr(word.find('=') + 1);
    } else if (word == "--progress" && i + 1 < words.size()) {
      value = words[i + 1];
      count = 2;
      // A bare --progress may stand before a file name.
      if (value != "json" && !value.starts_with("json,")) continue;
    } else {
      continue;
    }
    fd = descriptor_of(value);
    const auto at = words.begin() + static_cast<std::ptrdiff_t>(i);
    words.erase(at, at + static_cast<std::ptrdiff_t>(count));
    --i;
  }
  return fd;
}

Progress::Progress(const Session& session, bool wanted, bool quiet, double step, Start start)
    : step_(step) {
  // What these print on standard output is for programs as well.
  const bool late = start == Start::kWhenSlow || start == Start::kBesideResults;
  const bool beside =
      start == Start::kBesideResults && !wanted && platform::is_terminal(STDOUT_FILENO);
  if (session.progress_fd) {
    style_ = Style::kLines;
    fd_ = *session.progress_fd;
    begin_phase(session.verb);
  } else if (!quiet) {
    if (session.manners.bars && platform::is_terminal(STDERR_FILENO) && !beside)
      style_ = Style::kBar;
    else if (wanted)
      style_ = session.json || late ? Style::kBar : Style::kPercent;
  }
  if (style_ == Style::kNone) {
    catch_report_signal();
  }
  if (style_ == Style::kPercent && start == Start::kAtOnce) draw(0, 0, 0);
  if (style_ == Style::kBar && late && !wanted) quiet_until_ = Clock::now() + kSlow;
  own_phase_ = phase_ = session.verb;
  if (!session.manners.bars) return;
  notes_ = session.wait_notes;
  if (notes_ != nullptr) notes_->show_in(this);
  session.context.progress = [this](std::string_view phase, uint64_t done, uint64_t total) {
    report(phase, done, total);
  };
  detach_ = [&context = session.context] { context.progress = nullptr; };
}

Progress::~Progress() {
  if (detach_) detach_();
  if (notes_ != nullptr) notes_->show_in(nullptr);
  finish();
}

void Progress::begin_phase(std::string_view name) {
  const std::lock_guard lock(mutex_);
  own_phase_ = name;
  enter(name);
}

void Progress::enter(std::string_view phase) {
  shown_ = -1;
  if (style_ == Style::kLines && (done_ != 0 || total_ != 0)) line("running", true);
  phase_ = phase;
  done_ = total_ = rate_done_ = 0;
  rate_ = 0;
  started_ = told_ = rate_at_ = Clock::now();
}

// One line. Where nobody reads a line is left out rather than waited for, unless it MUST be seen.
void Progress::line(std::string_view state, bool must) {
  const auto now = Clock::now();
  const std::chrono::duration<double> window = now - rate_at_;
  const std::chrono::duration<double> elapsed = now - started_;
  // At first, and for a job that is shorter than a window: the mean.
  if (window >= kRateWindow) {
    rate_ = static_cast<double>(done_ - rate_done_) / window.count();
    rate_at_ = now;
    rate_done_ = done_;
  } else if (rate_done_ == 0 && elapsed.count() > 0) {
    rate_ = static_cast<double>(done_) / elapsed.count();
  }
  told_ = now;
  Value out = Value::object();
  out.set("progress", uint64_t{1});
  out.set("phase", phase_);
  out.set("state", std::string(state));
  out.set("done", done_);
  out.set("total", total_);
  out.set("rate", static_cast<uint64_t>(rate_));
  out.set("elapsed-ms",
          static_cast<uint64_t>(
              std::chrono::duration_cast<std::chrono::milliseconds>(now - started_).count()));
  if (waiting_) {
    Value server = Value::object();
    server.set("server", shown(waiting_->server).substr(0, kMostServerBytes));
    server.set("ms", static_cast<uint64_t>(waiting_->time.count()));
    server.set("reconnecting", waiting_->reconnecting);
    out.set("waiting", std::move(server));
  }
  const std::string text = out.compact(qemu::json_order) + "\n";
  if (!must && !takes_bytes(fd_, false)) return;
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t written = platform::write(fd_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EAGAIN && takes_bytes(fd_, true)) continue;
    // The reader has closed the other end: the work continues without it.
    if (written < 0) style_ = Style::kNone;
    if (written < 0) return;
    rest.remove_prefix(static_cast<size_t>(written));
  }
}

bool Progress::wait(const Servers::Waiting& waiting, const std::string& text) {
  const std::lock_guard lock(mutex_);
  if (style_ == Style::kLines) {
    waiting_ = waiting;
    if (Clock::now() - waited_ < kBetweenWaits) return true;
    waited_ = Clock::now();
    line("running", false);
    return true;
  }
  const bool bar = style_ == Style::kBar;
  if (!bar && (style_ != Style::kPercent || !platform::is_terminal(STDOUT_FILENO))) return false;
  const std::string percent = shown_ >= 0 ? fmt::format("{:5.1f} %  ", shown_) : "";
  std::FILE* out = bar ? stderr : stdout;
  std::fprintf(out, "\r%s%s\033[K", percent.c_str(), text.c_str());
  std::fflush(out);
  wait_drawn_ = true;
  return true;
}

void Progress::go_on() {
  const std::lock_guard lock(mutex_);
  waiting_.reset();
  wipe_wait();
}

// The next update draws the bar again.
void Progress::wipe_wait() {
  if (!wait_drawn_) return;
  wait_drawn_ = drawn_ = false;
  shown_ = -1;
  std::FILE* out = style_ == Style::kBar ? stderr : stdout;
  std::fprintf(out, "\r\033[K");
  std::fflush(out);
}

void Progress::update(uint64_t done, uint64_t total) { report({}, done, total); }

// An empty PHASE is the verb's own.
void Progress::report(std::string_view phase, uint64_t done, uint64_t total) {
  const std::lock_guard lock(mutex_);
  const bool known = total != 0 || phase.empty();
  if (phase.empty()) phase = own_phase_;
  if (phase != phase_) enter(phase);
  if (style_ == Style::kLines) {
    // Several workers report, not always in the order of what they say.
    const bool first = done_ == 0 && total_ == 0;
    done_ = std::max(done_, done);
    total_ = total;
    if (first || Clock::now() - told_ >= kBetweenLines) line("running", false);
    return;
  }
  const double percent =
      total == 0 ? 100 : 100.0 * static_cast<double>(done) / static_cast<double>(total);
  if (style_ == Style::kNone) {
    if (report_wanted()) std::fprintf(stderr, "    (%3.2f/100%%)\n", percent);
    return;
  }
  if (style_ == Style::kBar && Clock::now() < quiet_until_) return;
  if (!known) return draw_amount(done);
  // The end is always shown in percent, once more by the verb, as scripts expect.
  const bool end = percent >= 100 && (style_ == Style::kPercent || shown_ < 100);
  if (percent < shown_ + step_ && !end) return;
  draw(percent, done, total);
}

void Progress::draw(double percent, uint64_t done, uint64_t total) {
  wipe_wait();
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
  std::fprintf(stderr, "\r[%s] %5.1f %%  %s of %s \033[K", bar.c_str(), percent,
               human_size(done).c_str(), human_size(total).c_str());
  std::fflush(stderr);
}

// Where nobody knows how much will come.
void Progress::draw_amount(uint64_t done) {
  if (style_ != Style::kBar || Clock::now() - told_ < kBetweenLines) return;
  told_ = Clock::now();
  wipe_wait();
  drawn_ = true;
  std::fprintf(stderr, "\r%s: %s \033[K", phase_.c_str(), human_size(done).c_str());
  std::fflush(stderr);
}

void Progress::finish() {
  const std::lock_guard lock(mutex_);
  waiting_.reset();
  wipe_wait();
  if (style_ == Style::kPercent) {
    std::printf("\n");
    std::fflush(stdout);
  } else if (style_ == Style::kBar && drawn_) {
    std::fprintf(stderr, "\n");
  } else if (style_ == Style::kLines) {
    line("ended", true);
  }
  style_ = Style::kNone;
}

}  // namespace cairn::cli
