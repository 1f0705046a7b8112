#include <cstdio>

#include "block/context.h"
#include "format/qcow2/check.h"

namespace cairn {

using namespace qcow2;

// The marks in the header that say what is known to be wrong: dirty (counters may be stale) and
// corrupt (tables are damaged). Other workers read header_ meanwhile, so what is set while the
// image is in use is kept next to it.

namespace {
Task<void> set_in_background([[maybe_unused]] NodePtr keep, Task<void> marking, Semaphore& ended) {
  try {
    co_await marking;
  } catch (const Error&) {
    // The request that met the damage reports it; closing tries once more.
  }
  ended.release();
}
}  // namespace

uint64_t Qcow2Node::incompatible_now() const {
  const uint64_t all = kIncompatDirty | kIncompatCorrupt;
  return (header_.incompatible & ~all) | marks_.load();
}

// Sets and clears bits of the header's incompatible features; on stable storage when it returns.
Task<void> Qcow2Node::change_marks(uint64_t set, uint64_t clear) {
  if (header_.version < 3) co_return;
  Mutex::Guard guard = co_await marks_mutex_.lock();
  const uint64_t wanted = (marks_.load() & ~clear) | set;
  if (wanted == marks_.load()) co_return;
  const uint64_t all = kIncompatDirty | kIncompatCorrupt;
  std::byte field[8];
  store_be<uint64_t>(field, 0, (header_.incompatible & ~all) | wanted);
  co_await write_header_field(72, field);
  marks_.store(wanted);
}

// Counters reach the disk, and from now on before the tables that need them.
Task<void> Qcow2Node::end_lazy() {
  if (!lazy_) co_return;
  co_await flush_mapped();
  co_await refcounts_->write_back();
  co_await file_->flush();
  co_await change_marks(0, kIncompatDirty);
  lazy_ = false;
  l2_->set_before_write(nullptr);
  co_await l2_->write_after(*refcounts_);
}

// An image that was not closed cleanly is repaired before it is written.
Task<void> Qcow2Node::repair_dirty() {
  const auto report = [this](std::string_view line) { context().tell(line); };
  CheckRequest request;
  request.repair = CheckRequest::Repair::kAll;
  request.report = report;
  request.complain = report;
  std::exception_ptr error;
  int reason = EIO;
  try {
    Qcow2Checker checker(*this, request);
    const CheckResult result = co_await checker.run();
    if (result.check_errors == 0) co_return;
  } catch (const Error& met) {
    reason = met.error_number();
    if (met.kind() == ErrorKind::kCorrupt) error = std::current_exception();
  }
  if (error) std::rethrow_exception(error);
  throw Error::system(reason, "Could not repair dirty image");
}

// Says once what is wrong; the node stays usable.
void Qcow2Node::say_corrupt(const std::string& what) {
  if (corrupt_reported_.exchange(true)) return;
  context().tell("qcow2: Image is corrupt: " + what +
                 "; further non-fatal corruption events will be suppressed");
}

void Qcow2Node::corrupt(const std::string& what) {
  if (read_only()) {
    say_corrupt(what);
  } else if (!unusable_.exchange(true)) {
    corrupt_reported_.store(true);
    context().tell("qcow2: Marking image as corrupt: " + what +
                   "; further corruption events will be suppressed");
    spawn_detached_on(
        Worker::current()->home(),
        set_in_background(shared_from_this(), change_marks(kIncompatCorrupt, 0), corrupt_marked_));
  }
  throw explained(Error(ErrorKind::kCorrupt, "Input/output error"),
                  "The image is corrupt: " + what);
}

}  // namespace cairn
