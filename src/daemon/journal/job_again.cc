#include "daemon/journal/job_again.h"

#include "daemon/commands/commands.h"
#include "daemon/daemon.h"

namespace cairn::daemon {
namespace {

// JOB copies from now on what it has left, whatever its bitmap says, and leaves that alone.
void drop_bitmap(JournalJob& job) {
  const std::string sync = text_of(job.arguments, "sync");
  Value again = Value::object();
  for (const auto& [name, value] : *job.arguments.get_if<Value::Object>())
    if (name != "bitmap" && name != "bitmap-mode") again.set(name, value);
  if (sync == "bitmap" || sync == "incremental") again.set("sync", "full");
  job.arguments = std::move(again);
  job.written = nullptr;
}

// A backup ends with its bitmap as it should only where everything that was written since it began
// is known, which it is after an orderly end. Else the bitmap is not touched: it says itself that
// it is of no use, or marks too much. It is not looked for again: one that is made later under the
// same name must not be cleared when this backup is done. The graph's lock is held.
void settle_bitmap(Daemon& daemon, JournalJob& job) {
  if (job.arguments.find("bitmap") == nullptr) return;
  const std::string name = text_of(job.arguments, "bitmap");
  const NodePtr source = daemon.graph().get(text_of(job.arguments, "device"));
  const DirtyBitmapPtr bitmap = source->bitmaps().find(name);
  const bool usable = bitmap != nullptr && !bitmap->inconsistent() && bitmap->persistent();
  const bool known = job.written != nullptr && job.written->length() == source->length();
  if (usable && known) return;
  daemon.context().warn(
      "job '" + job.id + "' continues without the bitmap '" + name + "' of '" +
      source->node_name() +
      (bitmap == nullptr ? "', which is gone: make the next backup a full one, with a new bitmap"
       : !usable ? "', which is inconsistent: remove it, and make the next backup a full one, with "
                   "a new bitmap"
                 : "', which keeps all its marks: the next backup by it copies again what this one "
                   "has"));
  drop_bitmap(job);
}

// Decides what becomes of a job whose files were changed by others.
void judge(Daemon& daemon, JournalJob& job, const DisksFound& found) {
  if (text_of(job.arguments, "job-id") != job.id) invalid("its arguments are those of another job");
  const bool backup = job.type == live::JobType::kBackup;
  if (backup && job.open == nullptr) invalid("what it has copied is not known");
  if (!found.other.empty()) invalid(found.other);
  if (found.changed.empty()) return;
  const bool all = text_of(job.arguments, "sync") != "none";
  if (backup || (job.type == live::JobType::kMirror && !all)) invalid(found.changed);
  if (job.open != nullptr)
    daemon.context().warn("job '" + job.id + "' begins from the start: " + found.changed);
  job.open = nullptr;
}

}  // namespace

Task<JobStart> restore_job(Daemon& daemon, JournalJob job, DisksFound found) {
  judge(daemon, job, found);
  {
    const auto change = co_await daemon.graph().change();
    job = co_await restore_disks(daemon.graph(), job);
    check_disks(daemon.graph(), job);
    settle_bitmap(daemon, job);
  }
  JobStart start;
  start.command = job.command;
  start.arguments = job.arguments;
  start.arguments.set("speed", job.speed);
  start.left.remaining = job.open;
  start.left.written_since = job.written;
  co_return start;
}

}  // namespace cairn::daemon
