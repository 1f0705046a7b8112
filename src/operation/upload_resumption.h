#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "block/byte_sink.h"
#include "operation/conversion.h"
#include "operation/copy_journal.h"

namespace cairn::operation {

// An upload that may end early and go on later: keeps the journal, and knows from it what earlier
// runs left at the server. The image is made from its beginning each time, and what the server has
// of it already is compared by digests, so that nothing but the same bytes counts; of a raw disk
// that is left out whose sources say that they have not changed. In the order of
// the methods; those of UploadLog come between begin() and the last two.
class UploadResumption : public UploadLog {
 public:
  // Reads the journal, if there is one. Throws kInvalid where OPTIONS name none. Blocks; not from a
  // task.
  UploadResumption(Caller& caller, const ConversionOptions& options);

  // The sources are open. Compares them with those of the journal, or begins one. Throws kInvalid
  // that says what differs.
  Task<void> begin(std::vector<NodePtr> sources);
  // After begin(): an earlier run has read the same, as all storage of the sources says.
  bool same_sources() const { return goes_on_ && identified_; }
  // An earlier run was allowed to replace what is there.
  bool replaces() const { return replaces_; }
  // All is done: the journal goes. Blocks.
  void complete();
  // The work failed: says in ERROR what stays, and removes what is of no use. Blocks.
  void failed(Error& error);
  // What earlier runs had sent, bytes.
  uint64_t resumed_at() const { return resumed_at_; }

  const Left& left() const override { return left_; }
  void goes_on(uint64_t bytes) override;
  void ended() override;
  void began(const std::string& id) override;
  void sent(const UploadedPart& part) override;

 private:
  Caller& caller_;
  std::string target_;  // for messages
  bool overwrite_;
  bool quiet_;
  bool replaces_;
  std::vector<CopyRecord::Fact> options_;  // the facts that are known before the sources
  std::mutex writing_;                     // guards journal_ and record_ while parts are sent
  CopyJournal journal_;
  CopyRecord record_;
  Left left_;
  bool goes_on_ = false;
  bool identified_ = false;  // all storage of the sources says whether it has changed
  bool begun_ = false;       // the journal is this run's
  uint64_t resumed_at_ = 0;
};

}  // namespace cairn::operation
