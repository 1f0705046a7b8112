#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "operation/operation.h"

namespace cairn::cli {

class Progress;

// Says that a server is waited for: in the progress line after two seconds, else, where standard
// error is a terminal, on a line of its own after five, which goes when the server answers. Costs
// a thread once a server is opened, and nothing before. Ends a program that takes its time to end
// when a server does not answer (cli/signals.h).
class WaitNotes {
 public:
  // WANTED: under Cairn's own name. CONTEXT must outlive this object.
  WaitNotes(Context& context, bool wanted);
  ~WaitNotes();
  WaitNotes(const WaitNotes&) = delete;

  // PROGRESS is asked first from now on; null: nobody is. Returns when it is not being called.
  void show_in(Progress* progress);

 private:
  void watch();
  void look();
  void end_without(const Servers::Waiting& waiting);

  Context& context_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  Progress* progress_ = nullptr;
  std::optional<std::chrono::steady_clock::time_point> ending_;  // since when it was seen
  std::thread thread_;
};

// Wipes the line that says so, before something else is printed. From any thread.
void wipe_wait_note();

}  // namespace cairn::cli
