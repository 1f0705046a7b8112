#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "async/sync.h"
#include "base/unfinished.h"
#include "job/copy_log.h"
#include "operation/conversion.h"
#include "operation/copy_journal.h"

namespace cairn::operation {

// A conversion that may end early and go on later: keeps the journal, and knows from it what an
// earlier run left. In the order of the methods:
//
//   the journal is on stable storage before the target is made, so that a target without one is
//   never ours; "made" follows when the empty target is durable; an entry when the target was
//   flushed after the data that it names; and data past what the last entry calls begun is
//   written after an entry that says more.
class Resumption : public CopyLog {
 public:
  // Reads the journal, if there is one. Throws kUnsupported where a target as OPTIONS say cannot be
  // resumed. Blocks; not from a task.
  Resumption(Caller& caller, const ConversionOptions& options);

  // The sources are open. Compares them with those of the journal, or begins one, and makes sure
  // that a new target loses nothing. Throws kInvalid that says what differs, kExists.
  Task<void> begin(std::vector<NodePtr> sources);
  // An earlier run has made the target.
  bool target_is_made() const { return record_.target_bytes.has_value(); }
  // An earlier run may have made files of it.
  bool begins_again() const { return goes_on_; }
  // Repairs the target of an earlier run, which REQUEST opens.
  Task<void> repair(OpenRequest request);
  // TARGET is open, as it was made by this run or an earlier one. What becomes of the rest of the
  // work, it stays.
  Task<void> opened(NodePtr target);
  // Puts the target into the state in which a copy by OPTIONS begins, which get the rest.
  Task<void> ready(ConvertOptions& options);
  // What was lost earlier goes into LOST, and what becomes lost there into the journal: until
  // ended(). LOST outlives that.
  void watch(LostRanges& lost);
  // The copy has ended, early if it FAILED: notes what is copied, if that can be.
  Task<void> ended(bool failed);

  // What an earlier run had copied, bytes.
  uint64_t resumed_at() const { return resumed_at_; }
  // All is done: the journal goes. Blocks.
  void complete();
  // The work failed: says in ERROR what stays, and removes what is of no use. Blocks.
  void failed(Error& error);

  Task<void> begins(uint64_t end) override;
  Task<void> reached(uint64_t end) override;

 private:
  using Clock = std::chrono::steady_clock;
  void claim_file();
  void find_file();
  void sync_directory() const;
  Task<void> release_old();
  Task<void> note(uint64_t done);

  Caller& caller_;
  std::string target_;  // for messages
  std::string file_;    // of the target, on this host; empty: there is none
  bool create_;
  bool overwrite_;
  bool quiet_;
  std::vector<CopyRecord::Fact> options_;  // the facts that are known before the sources
  CopyJournal journal_;
  CopyRecord record_;
  bool goes_on_ = false;
  bool begun_ = false;      // the journal is this run's
  bool made_file_ = false;  // an empty file for the target
  bool opened_ = false;
  uint64_t resumed_at_ = 0;
  NodePtr node_;
  LostRanges* lost_ = nullptr;
  uint64_t lost_noted_ = 0;
  std::optional<Unfinished> unfinished_;

  Mutex writing_;  // guards record_ and journal_ while the copy runs
  std::atomic<uint64_t> begun_to_{0};
  std::atomic<uint64_t> reached_{0};
  std::atomic<bool> noting_{false};
  std::atomic<Clock::rep> next_{0};
  uint64_t ahead_ = uint64_t{64} << 20;
  Clock::time_point extended_;
};

}  // namespace cairn::operation
