#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/value.h"
#include "block/dirty_bitmap.h"
#include "job/live/progress.h"
#include "job/live/types.h"
#include "operation/summed_lines.h"

namespace cairn::daemon {

// A regular file that a job reads or writes.
struct JournalFile {
  std::string path;     // absolute
  uint64_t number = 0;  // of the inode
};

// A job that is to be continued, or of which it is to be said that it cannot be.
struct JournalJob {
  std::string id;
  live::JobType type = live::JobType::kStream;
  // Why it is not continued; empty: it is.
  std::string lost;
  // What follows is empty where it is lost.
  std::string command;
  Value arguments = Value::object();
  int64_t speed = 0;
  bool paused = false;
  std::string group = {};          // as in JobRecipes
  std::vector<std::string> nodes;  // names, as people gave them
  std::vector<Value> recipes;      // NodeRecipe, children before their parents
  std::vector<JournalFile> files;
  // What is not stable in the target; null: not known, or the images say so.
  std::shared_ptr<DirtyBitmap> open = {};
  // Of a backup by a bitmap, after an orderly end: what was written since it began. Null: not
  // known, and its bitmap is of no use to it any more.
  std::shared_ptr<DirtyBitmap> written = {};
};

// What a daemon keeps of its jobs.
struct Journal {
  // Seconds since 1970: when the daemon was there last, give or take the time between two lines
  // that say so. Nobody but the daemon has changed the files of the jobs until then.
  int64_t seen = 0;
  std::vector<JournalJob> jobs;
};

// A journal is text: lines of JSON, each after the CRC-32C of all lines up to it. The first is the
// head, with the number of jobs, a line for each follows, and then what has happened since.
inline constexpr size_t kMostJournalBytes = size_t{64} << 20;

class JournalWriter {
 public:
  // Throws kTooLarge.
  std::string whole(const Journal& journal);
  // Lines to be appended: as ProgressStore::record(); and that the job is not continued, which is
  // to be said with the reason WHY, unless that is empty.
  std::string change(const std::string& id, bool open, const live::Runs& runs);
  std::string end(const std::string& id, const std::string& why);
  // The daemon is still there.
  std::string time(int64_t seen);

 private:
  std::string line(const Value& value);
  operation::SummedLines lines_;
};

// What the text says, changes included. A last line that is cut, or was not written whole, is left
// out. Throws kInvalid where it is no journal or one of a later version, kCorrupt where it is
// damaged.
Journal parse_journal(std::string_view text);

}  // namespace cairn::daemon
