#pragma once

#include <functional>
#include <string>

#include "base/value.h"
#include "operation/caller.h"

namespace cairn::operation {

// Runs COMMAND of QMP with ARGUMENTS at the daemon whose control socket is at ADDRESS (a path or
// HOST:PORT), and gives what it returns. Throws kInvalid for an address that is none, what the
// daemon answers as an error, and kIo where nobody answers within ten seconds of connecting.
Value run_command(const Caller& caller, const std::string& address, const std::string& command,
                  const Value& arguments);
// Hands EACH the events of the daemon, as QMP has them, until the caller cancels or the connection
// ends, which throws.
void watch_events(const Caller& caller, const std::string& address,
                  const std::function<void(const Value& event)>& each);

}  // namespace cairn::operation
