#pragma once

#include <string>
#include <vector>

#include "async/task.h"
#include "block/graph/graph.h"
#include "daemon/journal/journal_text.h"

namespace cairn::daemon {

// Puts the nodes, their recipes and the files of the job JOB.ID into JOB. The graph's lock is held.
void capture_disks(Graph& graph, JournalJob& job);

// Opens the nodes of JOB that are not there; gives JOB with the names that they have now. The
// graph's lock is held. Throws what opening throws.
Task<JournalJob> restore_disks(Graph& graph, JournalJob job);

// Throws kInvalid where the nodes of JOB, which are there, are on other files than when it began.
void check_disks(const Graph& graph, const JournalJob& job);

// Why the files of JOB are not what they were: another one has the name of one of them, or was
// changed after SEEN. Empty: they are. Blocks.
struct DisksFound {
  std::string other;
  std::string changed;
};
DisksFound look_at_files(const JournalJob& job, int64_t seen);

}  // namespace cairn::daemon
