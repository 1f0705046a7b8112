#pragma once

#include <chrono>
#include <functional>

#include "async/task.h"

namespace cairn {
class CancelSource;
}

namespace cairn::rbd {

// Runs WORK on a thread of its own and waits for its end; throws what it throws. When CHECK throws,
// or after LIMIT with ETIMEDOUT, nothing waits any more: WORK must own all that it touches. Blocks.
void call_library(std::function<void()> work, std::chrono::steady_clock::duration limit,
                  const std::function<void()>& check);

// The same for coroutines: CANCEL, when not null, ends the waiting.
Task<void> library_call(std::function<void()> work, std::chrono::steady_clock::duration limit,
                        const CancelSource* cancel);

// The library has something that it will not give back, such as a request without an answer: from
// now on the process ends without the library's own clearing up, which would wait for it or fail.
void leave_library_behind();

}  // namespace cairn::rbd
