#pragma once

#include <coroutine>
#include <exception>

#include "async/frame_pool.h"

namespace cairn::detail {

// A coroutine that starts at once and belongs to nobody. Its author catches its errors.
struct Detached {
  struct promise_type {
    static void* operator new(size_t bytes) { return allocate_frame(bytes); }
    static void operator delete(void* frame, size_t bytes) noexcept { free_frame(frame, bytes); }
    Detached get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { std::terminate(); }
  };
};

}  // namespace cairn::detail
