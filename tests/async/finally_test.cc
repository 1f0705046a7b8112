#include "async/finally.h"

#include <gtest/gtest.h>

#include <string>

#include "async/runtime.h"
#include "base/error.h"

namespace cairn {
namespace {

Task<void> step(std::string& done, std::string name, bool fails) {
  co_await yield_now();
  done += name;
  if (fails) throw Error(ErrorKind::kIo, name);
}

Task<int> counted(std::string& done, bool fails) {
  co_await step(done, "work", fails);
  co_return 7;
}

std::string error_of(Task<void> task) {
  Runtime runtime;
  try {
    runtime.run(std::move(task));
  } catch (const Error& error) {
    return error.message();
  }
  return "none";
}

TEST(Finally, TheFirstErrorCountsAndTheCleanupRunsAlways) {
  for (const bool work_fails : {false, true}) {
    for (const bool cleanup_fails : {false, true}) {
      std::string done;
      const std::string error = error_of(finally([&] { return step(done, "work", work_fails); },
                                                 [&] { return step(done, "end", cleanup_fails); }));
      EXPECT_EQ(done, "workend");
      EXPECT_EQ(error, work_fails ? "work" : cleanup_fails ? "end" : "none");
    }
  }
}

TEST(OnFailure, UndoesWhatFailedAndNothingElse) {
  for (const bool work_fails : {false, true}) {
    for (const bool undo_fails : {false, true}) {
      std::string done;
      const std::string error =
          error_of(on_failure([&] { return step(done, "work", work_fails); },
                              [&] { return step(done, "undo", undo_fails); }));
      EXPECT_EQ(done, work_fails ? "workundo" : "work");
      EXPECT_EQ(error, work_fails ? "work" : "none");
    }
  }
}

TEST(OnFailure, GivesTheResult) {
  Runtime runtime;
  std::string done;
  const auto undo = [&] { return step(done, "undo", true); };
  EXPECT_EQ(runtime.run(on_failure([&] { return counted(done, false); }, undo)), 7);
  EXPECT_THROW(runtime.run(on_failure([&] { return counted(done, true); }, undo)), Error);
  EXPECT_EQ(done, "workworkundo");
}

// Lambdas that are coroutines, as most users write them.
TEST(Finally, LambdasMayCaptureWhereTheyAreAwaited) {
  std::string done;
  const auto whole = [](std::string& order) -> Task<void> {
    const std::string name = "a name that is too long to be stored in place";
    co_await finally(
        [&]() -> Task<void> {
          co_await step(order, name, false);
          co_await step(order, ".", true);
        },
        [&]() -> Task<void> { co_await step(order, name, false); });
  };
  EXPECT_EQ(error_of(whole(done)), ".");
  EXPECT_EQ(done.size(),
            2 * std::string("a name that is too long to be stored in place").size() + 1);
}

}  // namespace
}  // namespace cairn
