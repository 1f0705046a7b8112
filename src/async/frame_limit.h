#pragma once

namespace cairn::detail {

// Lets this thread keep more free coroutine frames than a caller's, of which there may be hundreds:
// it runs the requests of jobs and servers side by side.
void keep_many_frames() noexcept;

}  // namespace cairn::detail
