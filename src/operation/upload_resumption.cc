#include "operation/upload_resumption.h"

#include <fmt/core.h>

#include "async/runtime.h"
#include "operation/resume_facts.h"

namespace cairn::operation {

UploadResumption::UploadResumption(Caller& caller, const ConversionOptions& options)
    : caller_(caller),
      target_(options.target),
      overwrite_(options.overwrite),
      quiet_(options.quiet),
      replaces_(options.overwrite),
      options_(facts_of(options)),
      journal_(options.resume.value_or("")) {
  if (journal_.path().empty()) throw no_place_for_journal(target_);
  options_.push_back({"the digest of the target's name", name_digest(target_)});
  auto record = journal_.read();
  if (!record) return;
  if (record->upload)
    left_ = {.id = record->upload->id, .useless = overwrite_, .parts = record->upload->parts};
  if (overwrite_) return;
  replaces_ = record->upload && record->upload->replaces;
  record_ = std::move(*record);
  goes_on_ = true;
}

Task<void> UploadResumption::begin(std::vector<NodePtr> sources) {
  std::vector<CopyRecord::Fact> now = options_;
  for (CopyRecord::Fact& fact : facts_of(sources)) now.push_back(std::move(fact));
  identified_ = tell_of_changes(sources);
  if (goes_on_) require_same(record_, now, journal_.path(), true);
  record_.facts = std::move(now);
  // What is to be ended stays in the journal until that is done.
  if (left_.useless)
    record_.upload = UnfinishedUpload{.id = left_.id, .replaces = replaces_, .parts = {}};
  co_await run_blocking([this] { journal_.write(record_); });
  begun_ = true;
}

void UploadResumption::goes_on(uint64_t bytes) {
  resumed_at_ = bytes;
  if (!quiet_)
    caller_.note(fmt::format("going on with '{}': the server has {} bytes of it", target_, bytes));
}

void UploadResumption::ended() {
  const std::lock_guard lock(writing_);
  record_.upload.reset();
  journal_.write(record_);
}

void UploadResumption::began(const std::string& id) {
  const std::lock_guard lock(writing_);
  record_.upload = UnfinishedUpload{.id = id, .replaces = replaces_, .parts = {}};
  journal_.write(record_);
}

void UploadResumption::sent(const UploadedPart& part) {
  const std::lock_guard lock(writing_);
  journal_.append(part);
}

void UploadResumption::complete() { journal_.remove(); }

void UploadResumption::failed(Error& error) {
  if (!begun_) return;
  if (record_.upload) {
    error.hint(
        fmt::format("The parts that were sent stay at the server, and the journal '{}' here: the "
                    "same command continues with them, unless it starts again.",
                    journal_.path()),
        "overwrite");
    return;
  }
  try {
    journal_.remove();
  } catch (const Error& left) {
    error.hint(left.message());
  }
}

}  // namespace cairn::operation
