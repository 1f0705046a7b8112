#pragma once

#include "control/control.h"

namespace cairn::control {

// What query-jobs, query-named-block-nodes and query-block-exports return, as tables for people.
// Throws kIo where it is no list.
void show_jobs(const Session& session, const Value& list);
void show_nodes(const Session& session, const Value& list);
void show_exports(const Session& session, const Value& list);
// An event of QMP as a line on standard output: what it says for people, or the whole of it.
void print_event(const Session& session, const Value& event);

}  // namespace cairn::control
