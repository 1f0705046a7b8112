#include "operation/resumption.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>

#include "block/capabilities/compressed_writer.h"
#include "block/capabilities/lockable.h"
#include "block/driver.h"
#include "block/remote.h"
#include "operation/check.h"
#include "operation/resume_facts.h"
#include "operation/target.h"
#include "platform/directory.h"
#include "platform/file.h"

namespace cairn::operation {
namespace {

using std::chrono::milliseconds;

// Between entries: at least so long, and so many times as long as the last one took, but no more
// than the most.
constexpr auto kShortestPause = milliseconds(200);
constexpr auto kLongestPause = milliseconds(15'000);
constexpr int kPauseFactor = 5;
// How far ahead of the data an entry lets it be written: more where that is soon used up.
constexpr uint64_t kLeastAhead = uint64_t{64} << 20;
constexpr uint64_t kMostAhead = uint64_t{4} << 30;
constexpr auto kSoon = milliseconds(2'000);
// Entries that the journal gathers before it is written again.
constexpr size_t kLongJournal = 4 << 20;

std::string inode_of(const platform::FileStatus& status) {
  return "inode " + std::to_string(status.number);
}

Error not_resumable(const std::string& target, const std::string& why) {
  return Error(ErrorKind::kUnsupported, "The copy cannot be resumed: '" + target + "' " + why)
      .hint("Convert to a format that is written in any order, or in one run.", "resume");
}

}  // namespace

Resumption::Resumption(Caller& caller, const ConversionOptions& options)
    : caller_(caller),
      target_(options.target),
      create_(options.create),
      overwrite_(options.overwrite),
      quiet_(options.quiet),
      options_(facts_of(options)),
      journal_(options.resume.value_or("")) {
  if (!options.opened_as) find_file();
  const std::string shape = options.create_options.string("subformat").value_or("");
  if (options.format == "ova" || shape == "streamOptimized" ||
      (options.image != nullptr && options.image->archive))
    throw not_resumable(target_, "is written from its first byte to its last");
  if (journal_.path().empty()) {
    if (file_.empty()) throw no_place_for_journal(target_);
    journal_ = CopyJournal(file_ + ".cairn-resume");
  }
  if (journal_.path() == file_)
    throw Error(ErrorKind::kInvalid, "'" + file_ + "' cannot be the target and its journal");
  auto record = journal_.read();
  if (!record || (overwrite_ && create_)) return;
  record_ = std::move(*record);
  goes_on_ = true;
}

// Where the target is a regular file of this host, or can become one.
void Resumption::find_file() {
  const Driver& protocol = protocol_of(caller_.context, target_);
  if (protocol.name() != "file") return;
  Options named;
  protocol.parse_filename(target_, named);
  const std::string name = named.string("filename").value_or(target_);
  const auto status = platform::status(name);
  if (!status || status->is_regular()) file_ = name;
}

Task<void> Resumption::begin(std::vector<NodePtr> sources) {
  std::vector<CopyRecord::Fact> now = options_;
  if (file_.empty()) now.push_back({"the digest of the target's name", name_digest(target_)});
  for (CopyRecord::Fact& fact : facts_of(sources)) now.push_back(std::move(fact));
  if (goes_on_) require_same(record_, now, journal_.path(), create_);
  record_.facts = std::move(now);
  if (!goes_on_ && create_ && overwrite_) co_await release_old();
  co_await run_blocking([&] { claim_file(); });
}

// The image that is replaced goes, unless somebody uses it.
Task<void> Resumption::release_old() {
  if (file_.empty() || platform::status(file_).value_or(platform::FileStatus()).size == 0)
    co_return;
  OpenRequest request;
  request.filename = file_;
  request.format = "file";
  request.flags.writable = true;
  const NodePtr old = co_await open_node(caller_.context, std::move(request));
  const uint64_t all = Permissions::kWrite | Permissions::kResize;
  std::exception_ptr error;
  try {
    co_await set_permissions(*old, {.used = all, .unshared = all});
    if (platform::remove(file_) != 0) throw Error::system(errno, file_);
  } catch (...) {
    error = std::current_exception();
  }
  std::vector<NodePtr> nodes(1, old);
  co_await close_all(std::move(nodes), error);
}

// The file is there, and the journal knows it, before anything is written to it.
void Resumption::claim_file() {
  auto status = file_.empty() ? std::nullopt : platform::status(file_);
  const bool there = status.has_value();
  if (goes_on_) {
    if (file_.empty() || record_.object.empty()) return;
    if (!there || inode_of(*status) != record_.object)
      throw Error(ErrorKind::kInvalid,
                  fmt::format("The journal '{}' belongs to another file than {}", journal_.path(),
                              there ? "'" + file_ + "' is now" : "'" + file_ + "', which is gone"))
          .hint("Put the file back to go on, or remove the journal to start again.");
    // Making it was cut off.
    if (!record_.target_bytes && create_ && !empty_file(file_)) throw Error::system(errno, file_);
    begun_ = true;
    return;
  }
  if (!file_.empty() && create_) {
    if (there && status->size != 0) refuse_existing(file_);
    if (!there) {
      const OwnFd made(platform::open(file_, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
      if (!made) throw Error::system(errno, "Could not create '" + file_ + "'");
      made_file_ = true;
      status = platform::status_of(made.get());
      if (!status) throw Error::system(errno, file_);
    }
  }
  if (there || made_file_) record_.object = inode_of(*status);
  try {
    journal_.write(record_);
  } catch (...) {
    if (made_file_) platform::remove(file_);
    throw;
  }
  begun_ = true;
}

Task<void> Resumption::repair(OpenRequest request) {
  request.flags.quiet_probe = true;
  CheckOptions options;
  options.repair = CheckRequest::Repair::kAll;
  CheckOutcome outcome = co_await check(caller_, std::move(request), std::move(options));
  if (outcome.failure)
    throw outcome.failure->context("repairing '" + target_ + "'").hint("Start again.", "overwrite");
  if (outcome.unsupported || (outcome.result.corruptions == 0 && outcome.result.check_errors == 0))
    co_return;
  throw Error(ErrorKind::kCorrupt, "'" + target_ + "' is damaged: the copy cannot go on with it")
      .hint("Start again.", "overwrite");
}

Task<void> Resumption::opened(NodePtr target) {
  node_ = std::move(target);
  if (compressed_only(*node_))
    throw not_resumable(target_, "is written from its first byte to its last");
  if (!file_.empty()) unfinished_.emplace(file_, Unfinished::Fate::kGoesOn);
  if (target_is_made()) {
    if (node_->length() != *record_.target_bytes)
      throw Error(ErrorKind::kInvalid,
                  fmt::format("The journal '{}' does not fit: the disk of '{}' had {} bytes "
                              "and has {} now",
                              journal_.path(), target_, *record_.target_bytes, node_->length()))
          .hint("Remove the journal to start again.");
    opened_ = true;
    co_return;
  }
  co_await node_->flush();
  record_.target_bytes = node_->length();
  co_await run_blocking([&] {
    sync_directory();
    journal_.write(record_);
  });
  opened_ = true;
}

// The names of files that the format made.
void Resumption::sync_directory() const {
  if (file_.empty()) return;
  const std::string directory = platform::directory_of(file_);
  const OwnFd opened(platform::open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (opened && platform::sync(opened.get()) != 0 && errno != EINVAL)
    throw Error::system(errno, directory);
}

Task<void> Resumption::ready(ConvertOptions& options) {
  options.begin = resumed_at_ = record_.done;
  options.log = this;
  if (goes_on_) {
    if (options.zero_target || options.compress) {
      co_await zero_unfinished(
          *node_, {.done = record_.done, .begun = record_.begun, .whole = options.compress});
      record_.begun = std::min(record_.begun, record_.done);
    }
    // What a repair and the zeroes changed.
    co_await node_->flush();
    co_await run_blocking([&] { journal_.write(record_); });
    if (record_.done != 0 && !quiet_)
      caller_.note(fmt::format("going on with '{}' at byte {}", target_, record_.done));
  }
  begun_to_ = record_.begun;
  reached_ = record_.done;
  next_ = (Clock::now() + kShortestPause).time_since_epoch().count();
}

void Resumption::watch(LostRanges& lost) {
  for (const LostRanges::Range& range : record_.lost)
    lost.add(range.offset, range.bytes, range.cause);
  lost_ = &lost;
  lost_noted_ = lost.bytes();
}

Task<void> Resumption::begins(uint64_t end) {
  if (end <= begun_to_) co_return;
  const auto now = Clock::now();
  const bool soon = now - extended_ < kSoon;
  ahead_ = std::clamp(soon ? ahead_ * 2 : ahead_ / 2, kLeastAhead, kMostAhead);
  extended_ = now;
  const uint64_t to = std::min(end, UINT64_MAX - kMostAhead) + ahead_;
  const Mutex::Guard guard = co_await writing_.lock();
  record_.begun = to;
  co_await run_blocking([&] { journal_.append(record_.done, to); });
  begun_to_ = to;
}

Task<void> Resumption::reached(uint64_t end) {
  uint64_t before = reached_.load();
  while (before < end && !reached_.compare_exchange_weak(before, end)) {
  }
  if (Clock::now().time_since_epoch().count() < next_ || noting_.exchange(true)) co_return;
  const auto begin = Clock::now();
  std::exception_ptr error;
  try {
    co_await note(reached_.load());
  } catch (...) {
    error = std::current_exception();
  }
  const auto end_time = Clock::now();
  const Clock::duration pause =
      std::clamp<Clock::duration>((end_time - begin) * kPauseFactor, kShortestPause, kLongestPause);
  next_ = (end_time + pause).time_since_epoch().count();
  noting_ = false;
  if (error) std::rethrow_exception(error);
}

Task<void> Resumption::note(uint64_t done) {
  co_await node_->flush();
  const Mutex::Guard guard = co_await writing_.lock();
  record_.done = std::max(record_.done, done);
  const bool lost = lost_ != nullptr && lost_->bytes() != lost_noted_;
  if (lost) {
    lost_noted_ = lost_->bytes();
    record_.lost.clear();
    for (LostRanges::Range range : lost_->list()) {
      if (range.offset >= record_.done) break;
      range.bytes = std::min(range.bytes, record_.done - range.offset);
      record_.lost.push_back(std::move(range));
    }
  }
  const bool anew = lost || journal_.length() > kLongJournal;
  co_await run_blocking([&] {
    if (anew)
      journal_.write(record_);
    else
      journal_.append(record_.done, record_.begun);
  });
}

Task<void> Resumption::ended(bool failed) {
  try {
    // A server may be what failed.
    if (!failed || !is_remote(*node_)) co_await note(reached_.load());
  } catch (const Error&) {
    if (!failed) throw;
  }
  lost_ = nullptr;
  node_ = nullptr;
}

void Resumption::complete() {
  unfinished_.reset();
  node_ = nullptr;
  journal_.remove();
}

void Resumption::failed(Error& error) {
  node_ = nullptr;
  if (!begun_) return;
  if (target_is_made()) {
    error.hint(
        fmt::format("The incomplete target '{}' and its journal '{}' stay: the same command "
                    "continues with them.",
                    target_, journal_.path()));
    return;
  }
  try {
    journal_.remove();
    if (!file_.empty() && create_ && platform::remove(file_) == 0)
      error.hint("The incomplete target '" + target_ + "' was removed.");
  } catch (const Error& left) {
    error.hint(left.message());
  }
}

}  // namespace cairn::operation
