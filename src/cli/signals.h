#pragma once

#include <chrono>

#include "operation/operation.h"

namespace cairn::cli {

// The first INT, TERM or HUP asks for an orderly end; the second one does not wait for it. A
// program that has not ended shortly after the first one, because a server is silent or a system
// call takes its time, ends all the same: new files are removed, others named (base/unfinished.h).
// A broken pipe and a file that may not grow further (ulimit -f) become errors. Called once.
CancelSource& catch_signals(const char* program);
// The signal that asked for the end; 0: none did.
int interrupted_by();
// What has something to clear away at a server takes LIMIT instead of that moment, less than a
// second.
void take_this_long_to_end(std::chrono::milliseconds limit);
// What runs until it is ended and then has to finish the work of others, such as a server,
// takes the time that this needs.
void take_time_to_end();
// The same, for as long as the servers of its disks answer.
void take_time_while_servers_answer();
// Whether such an end was asked for by a signal.
bool waits_for_servers();
// Ends the program as it would have ended without that time, and says why: WHY. From any thread.
[[noreturn]] void end_at_once(const std::string& why);

}  // namespace cairn::cli
