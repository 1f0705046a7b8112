#include "cli/waiting.h"

#include <fmt/core.h>

#include <cstdio>

#include "async/async.h"
#include "cli/escape.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "platform/system.h"

namespace cairn::cli {
namespace {

using namespace std::chrono_literals;
constexpr auto kBetweenLooks = 200ms;
constexpr auto kLateForProgress = 2s;
constexpr auto kLate = 5s;
// What a program that was asked to end grants a server: a flush may take its time, a connection
// that is lost will not come back soon.
constexpr auto kGrace = 500ms;
constexpr auto kSilence = 5s;
// What fits on a terminal of 80 columns with the rest of the line.
constexpr size_t kMostShownServer = 40;

std::mutex note_mutex;
bool note_shown = false;

void show_note(const std::string& text) {
  const std::lock_guard lock(note_mutex);
  note_shown = true;
  std::fprintf(stderr, "\r%s\033[K", text.c_str());
  std::fflush(stderr);
}

std::string text_of(const Servers::Waiting& waiting) {
  std::string server = shown(waiting.server);
  if (server.size() > kMostShownServer) server = server.substr(0, kMostShownServer - 3) + "...";
  return fmt::format("{} {} ({} s)", waiting.reconnecting ? "reconnecting to" : "waiting for",
                     server, waiting.time.count() / 1000);
}

}  // namespace

void wipe_wait_note() {
  const std::lock_guard lock(note_mutex);
  if (!note_shown) return;
  note_shown = false;
  std::fprintf(stderr, "\r\033[K");
  std::fflush(stderr);
}

WaitNotes::WaitNotes(Context& context, bool wanted) : context_(context) {
  if (!wanted) return;
  context_.servers.on_first([this] {
    const std::lock_guard lock(mutex_);
    if (!stopping_) thread_ = start_thread("cairn-waiting", [this] { watch(); });
  });
}

WaitNotes::~WaitNotes() {
  context_.servers.on_first(nullptr);
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  wipe_wait_note();
}

void WaitNotes::show_in(Progress* progress) {
  const std::lock_guard lock(mutex_);
  progress_ = progress;
}

void WaitNotes::watch() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, kBetweenLooks, [this] { return stopping_; })) look();
}

void WaitNotes::end_without(const Servers::Waiting& waiting) {
  const auto now = std::chrono::steady_clock::now();
  if (!ending_) ending_ = now;
  if (now - *ending_ < kGrace || (!waiting.reconnecting && waiting.time < kSilence)) return;
  wipe_wait_note();
  end_at_once(shown(waiting.server) +
              (waiting.reconnecting ? " cannot be reached" : " does not answer"));
}

// mutex_ is held.
void WaitNotes::look() {
  const auto waiting = context_.servers.longest();
  if (waiting && waits_for_servers()) end_without(*waiting);
  const bool late = waiting && waiting->time >= kLateForProgress;
  if (progress_ != nullptr) {
    if (!late) {
      progress_->go_on();
    } else if (progress_->wait(*waiting, text_of(*waiting))) {
      return wipe_wait_note();
    }
  }
  if (!late || waiting->time < kLate) return wipe_wait_note();
  if (platform::is_terminal(STDERR_FILENO)) show_note(text_of(*waiting));
}

}  // namespace cairn::cli
