#pragma once

#include <concepts>
#include <exception>
#include <optional>
#include <type_traits>
#include <utility>

#include "async/task.h"

// What is to be done after work that may fail, and needs co_await itself: a catch block cannot have
// one. Works and cleanups are callables that give tasks. They run in the statement that awaits the
// result, so lambdas may capture by reference. Each costs a frame: where every request passes, keep
// the std::exception_ptr by hand.

namespace cairn {

template <class Work>
concept GivesNothing = std::same_as<std::invoke_result_t<Work&>, Task<void>>;

// Awaits WORK and then, whether that failed or not, CLEANUP. Throws the error of WORK, else that of
// CLEANUP.
template <GivesNothing Work, GivesNothing Cleanup>
Task<void> finally(Work work, Cleanup cleanup) {
  std::exception_ptr error;
  try {
    co_await work();
  } catch (...) {
    error = std::current_exception();
  }
  try {
    co_await cleanup();
  } catch (...) {
    if (!error) error = std::current_exception();
  }
  if (error) std::rethrow_exception(error);
}

// Awaits WORK. When that fails, awaits UNDO and throws the error of WORK, whatever came of UNDO.
template <GivesNothing Work, GivesNothing Undo>
Task<void> on_failure(Work work, Undo undo) {
  std::exception_ptr error;
  try {
    co_await work();
  } catch (...) {
    error = std::current_exception();
  }
  if (!error) co_return;
  try {
    co_await undo();
  } catch (...) {
    // The first error is the one to report.
  }
  std::rethrow_exception(error);
}

// The same for work with a result.
template <class Work, GivesNothing Undo>
requires(!GivesNothing<Work>) std::invoke_result_t<Work&> on_failure(Work work, Undo undo) {
  std::exception_ptr error;
  try {
    auto result = co_await work();
    co_return result;
  } catch (...) {
    error = std::current_exception();
  }
  try {
    co_await undo();
  } catch (...) {
    // The first error is the one to report.
  }
  std::rethrow_exception(error);
}

}  // namespace cairn
