#include "async/async.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <thread>
#include <vector>

#include "async/buffer_pool.h"

namespace cairn {
namespace {

class AsyncTest : public testing::TestWithParam<EngineKind> {
 protected:
  RuntimeOptions options(unsigned workers) { return {.workers = workers, .engine = GetParam()}; }
};

Task<int> immediate(int value) { co_return value; }

Task<uint64_t> sum_of(int count) {
  uint64_t sum = 0;
  for (int i = 0; i < count; ++i) sum += static_cast<uint64_t>(co_await immediate(1));
  co_return sum;
}

TEST_P(AsyncTest, MillionImmediateAwaitsStayOnOneFrame) {
  Runtime runtime(options(1));
  EXPECT_EQ(runtime.run(sum_of(1'000'000)), 1'000'000u);
}

TEST_P(AsyncTest, MillionUncontendedLocks) {
  Runtime runtime(options(1));
  const auto loop = [](Mutex& mutex) -> Task<int> {
    int count = 0;
    for (int i = 0; i < 1'000'000; ++i) {
      auto guard = co_await mutex.lock();
      ++count;
    }
    co_return count;
  };
  Mutex mutex;
  EXPECT_EQ(runtime.run(loop(mutex)), 1'000'000);
}

Task<int> deep(int levels) {
  if (levels == 0) co_return 0;
  const int below = co_await deep(levels - 1);
  co_return below + 1;
}

TEST_P(AsyncTest, NestedTasksReturnThroughAllLevels) {
  Runtime runtime(options(1));
  EXPECT_EQ(runtime.run(deep(500)), 500);
}

Task<void> failing() {
  co_await yield_now();
  throw Error(ErrorKind::kNoSpace, "full");
}

TEST_P(AsyncTest, ErrorsReachTheAwaiter) {
  Runtime runtime(options(1));
  EXPECT_THROW(runtime.run(failing()), Error);
}

TEST_P(AsyncTest, GroupThrowsTheFirstErrorAfterAllHaveEnded) {
  Runtime runtime(options(1));
  int ended = 0;
  const auto work = [](int& count) -> Task<void> {
    co_await sleep_for(std::chrono::milliseconds(5));
    ++count;
  };
  const auto all = [&](int& count) -> Task<void> {
    TaskGroup group;
    group.spawn(failing());
    for (int i = 0; i < 10; ++i) group.spawn(work(count));
    co_await group.join();
  };
  EXPECT_THROW(runtime.run(all(ended)), Error);
  EXPECT_EQ(ended, 10);
}

// 64 tasks on each of four workers hammer the locks; each increment must be seen.
Task<void> hammer(Mutex& mutex, Semaphore& semaphore, RwLock& rw, uint64_t& plain, uint64_t& shared,
                  std::atomic<int>& inside) {
  for (int i = 0; i < 50; ++i) {
    {
      auto guard = co_await mutex.lock();
      ++plain;
      if (i % 7 == 0) co_await yield_now();
    }
    co_await semaphore.acquire();
    EXPECT_LE(++inside, 3);
    co_await yield_now();
    --inside;
    semaphore.release();
    if (i % 5 == 0) {
      auto guard = co_await rw.exclusive();
      ++shared;
    } else {
      auto guard = co_await rw.shared();
      EXPECT_LE(shared, 4u * 64 * 50);
    }
  }
}

TEST_P(AsyncTest, FourWorkersWithSixtyFourTasksEach) {
  Runtime runtime(options(4));
  Mutex mutex;
  Semaphore semaphore(3);
  RwLock rw;
  uint64_t plain = 0;
  uint64_t shared = 0;
  std::atomic<int> inside{0};
  const auto all = [&]() -> Task<void> {
    TaskGroup group;
    for (unsigned i = 0; i < 256; ++i)
      group.spawn_on(runtime.worker(i % 4), hammer(mutex, semaphore, rw, plain, shared, inside));
    co_await group.join();
  };
  runtime.run(all());
  EXPECT_EQ(plain, 256u * 50);
  EXPECT_EQ(shared, 256u * 10);
}

Task<void> borrower(BufferPool& pool, std::atomic<int>& lent) {
  for (int i = 0; i < 50; ++i) {
    BufferPool::Loan loan = co_await pool.borrow();
    EXPECT_LE(++lent, 3);
    EXPECT_EQ(loan.span().size(), 8192u);
    std::fill(loan.span().begin(), loan.span().end(), static_cast<std::byte>(i));
    co_await yield_now();
    EXPECT_EQ(loan.span().back(), static_cast<std::byte>(i));
    --lent;
  }
}

Task<void> take_turns(int turns, int& taken, bool& over) {
  while (taken < turns && !over) {
    ++taken;
    co_await yield_now();
  }
}

// How many of TURNS another coroutine had first.
Task<int> turns_before_one_that_yields_to_all(int turns) {
  TaskGroup group;
  int taken = 0;
  bool over = false;
  group.spawn(take_turns(turns, taken, over));
  co_await yield_to_all();
  const int before = taken;
  over = true;
  co_await group.join();
  co_return before;
}

TEST_P(AsyncTest, WhoYieldsToAllGoesLast) {
  Runtime runtime(options(1));
  EXPECT_EQ(runtime.run(turns_before_one_that_yields_to_all(10)), 10);
  // But not never.
  EXPECT_LT(runtime.run(turns_before_one_that_yields_to_all(INT_MAX)), INT_MAX);
}

TEST_P(AsyncTest, BuffersAreLentToOneAtATime) {
  Runtime runtime(options(4));
  BufferPool pool(8192, 3);
  std::atomic<int> lent{0};
  const auto all = [&]() -> Task<void> {
    TaskGroup group;
    for (unsigned i = 0; i < 32; ++i) group.spawn_on(runtime.worker(i % 4), borrower(pool, lent));
    co_await group.join();
  };
  runtime.run(all());
  EXPECT_EQ(lent, 0);
}

Task<void> range_user(RangeLock& lock, std::vector<int>& cells, unsigned seed) {
  uint64_t state = seed * 2654435761u + 1;
  for (int i = 0; i < 100; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const uint64_t offset = (state >> 33) % 90;
    const uint64_t length = 1 + (state >> 40) % 10;
    const bool exclusive = (state >> 50) % 2 == 0;
    RangeLock::Guard guard;
    co_await lock.acquire(guard, offset, length, exclusive);
    if (!exclusive) continue;
    for (uint64_t at = offset; at < offset + length; ++at) EXPECT_EQ(cells[at]++, 0);
    co_await yield_now();
    for (uint64_t at = offset; at < offset + length; ++at) --cells[at];
  }
}

TEST_P(AsyncTest, RangesThatOverlapExcludeEachOther) {
  Runtime runtime(options(3));
  RangeLock lock;
  std::vector<int> cells(100);
  const auto all = [&]() -> Task<void> {
    TaskGroup group;
    for (unsigned i = 0; i < 48; ++i)
      group.spawn_on(runtime.worker(i % 3), range_user(lock, cells, i));
    co_await group.join();
  };
  runtime.run(all());
}

TEST_P(AsyncTest, InOrderKeepsTheOrderOfNumbers) {
  Runtime runtime(options(3));
  InOrder in_order;
  std::vector<uint64_t> order;
  const auto piece = [](std::vector<uint64_t>& seen, uint64_t number) -> Task<void> {
    if (number % 5 == 0) co_await yield_now();
    seen.push_back(number);
    if (number % 50 == 7) throw Error(ErrorKind::kIo, "seven");
  };
  std::atomic<int> thrown{0};
  const auto one = [&](uint64_t number) -> Task<void> {
    if (number % 3 == 0) co_await yield_now();
    try {
      co_await in_order.run(number, piece(order, number));
    } catch (const Error&) {
      ++thrown;
      EXPECT_EQ(number % 50, 7u);
    }
  };
  const auto all = [&]() -> Task<void> {
    TaskGroup group;
    for (uint64_t i = 0; i < 200; ++i)
      group.spawn_on(runtime.worker(static_cast<unsigned>(i % 3)), one(199 - i));
    co_await group.join();
  };
  runtime.run(all());
  ASSERT_EQ(order.size(), 200u);
  for (uint64_t i = 0; i < 200; ++i) EXPECT_EQ(order[i], i);
  EXPECT_EQ(thrown, 4);
}

// What was cancelled while it waited says where; the one that is asked next says only that.
TEST_P(AsyncTest, GroupsPreferErrorsThatSayMore) {
  Runtime runtime(options(2));
  const auto fail = [](const char* text, int after) -> Task<void> {
    for (int i = 0; i < after; ++i) co_await yield_now();
    throw Error(ErrorKind::kCancelled, text);
  };
  const auto all = [&](const char* first, const char* second) -> Task<std::string> {
    TaskGroup group;
    group.spawn(fail(first, 0));
    group.spawn(fail(second, 9));
    try {
      co_await group.join();
    } catch (const Error& error) {
      co_return error.message();
    }
    co_return "";
  };
  EXPECT_EQ(runtime.run(all("cancelled", "disk: cancelled")), "disk: cancelled");
  EXPECT_EQ(runtime.run(all("disk: cancelled", "cancelled")), "disk: cancelled");
  EXPECT_EQ(runtime.run(all("one: cancelled", "two: cancelled")), "one: cancelled");
}

TEST_P(AsyncTest, TasksStayOnTheirWorker) {
  Runtime runtime(options(2));
  const auto there = [](Worker& worker) -> Task<bool> {
    bool same = Worker::current() == &worker;
    co_await sleep_for(std::chrono::milliseconds(1));
    same = same && Worker::current() == &worker;
    co_await run_blocking([] {});
    co_return same&& Worker::current() == &worker;
  };
  const auto all = [&]() -> Task<bool> {
    const Worker* home = Worker::current();
    EXPECT_FALSE(home->resident_index().has_value());
    const bool other = co_await run_on(runtime.worker(1), there(runtime.worker(1)));
    co_return other&& Worker::current() == home;
  };
  EXPECT_TRUE(runtime.run(all()));
}

TEST_P(AsyncTest, TimersFireInTheirOrder) {
  Runtime runtime(options(1));
  std::vector<int> order;
  const auto after = [](std::vector<int>& seen, int milliseconds) -> Task<void> {
    co_await sleep_for(std::chrono::milliseconds(milliseconds));
    seen.push_back(milliseconds);
  };
  const auto all = [&]() -> Task<void> {
    TaskGroup group;
    for (const int milliseconds : {30, 10, 20}) group.spawn(after(order, milliseconds));
    co_await group.join();
  };
  runtime.run(all());
  EXPECT_EQ(order, (std::vector<int>{10, 20, 30}));
}

TEST_P(AsyncTest, DescriptorsAreAwaitedForReadiness) {
  Runtime runtime(options(1));
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  std::thread writer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_EQ(::write(ends[1], "x", 1), 1);
  });
  const auto wait = [](int fd) -> Task<short> {
    const short events = co_await await_ready(fd, POLLIN);
    co_return events;
  };
  EXPECT_TRUE(runtime.run(wait(ends[0])) & POLLIN);
  writer.join();
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_P(AsyncTest, BlockingWorkReportsResultsAndErrors) {
  Runtime runtime(options(1));
  const auto work = []() -> Task<int> {
    const int value = co_await run_blocking([] { return 42; });
    bool thrown = false;
    try {
      co_await run_blocking([]() -> int { throw Error(ErrorKind::kIo, "no"); });
    } catch (const Error&) {
      thrown = true;
    }
    co_return thrown ? value : 0;
  };
  EXPECT_EQ(runtime.run(work()), 42);
}

TEST_P(AsyncTest, FilesAreReadAndWritten) {
  Runtime runtime(options(2));
  char name[] = "/tmp/cairn-async-XXXXXX";
  const int fd = ::mkstemp(name);
  ASSERT_GE(fd, 0);
  ::unlink(name);
  const auto round = [](IoFile file, uint64_t offset, char letter) -> Task<bool> {
    std::string out(10000, letter);
    iovec buffer{out.data(), out.size()};
    const ssize_t put = co_await io_writev(file, {&buffer, 1}, offset);
    std::string in(10000, 0);
    iovec back{in.data(), in.size()};
    const ssize_t got = co_await io_readv(file, {&back, 1}, offset);
    co_return put == 10000 && got == 10000 && in == out;
  };
  const auto all = [&]() -> Task<int> {
    std::atomic<int> good{0};
    const auto one = [&round](IoFile file, unsigned i, std::atomic<int>& count) -> Task<void> {
      const bool well = co_await round(file, i * 10000, static_cast<char>('a' + i % 26));
      if (well) ++count;
    };
    TaskGroup group;
    for (unsigned i = 0; i < 64; ++i)
      group.spawn_on(runtime.worker(i % 2), one({.fd = fd}, i, good));
    co_await group.join();
    const int synced = co_await io_fdatasync({.fd = fd});
    co_return synced == 0 ? good.load() : -1;
  };
  EXPECT_EQ(runtime.run(all()), 64);
  ::close(fd);
}

struct TurnsTest {
  // One long piece, and short ones after it.
  static constexpr uint64_t kGroups = 64;
  static constexpr uint64_t kPiecesOfGroup = 16;
  static constexpr size_t kLong = 192 << 10;
  static constexpr size_t kShort = 512;
  static constexpr size_t kGroupBytes = kLong + (kPiecesOfGroup - 1) * kShort;
  static char byte_of(uint64_t piece) { return static_cast<char>(piece % 251); }
  static size_t bytes_of(uint64_t piece) { return piece % kPiecesOfGroup == 0 ? kLong : kShort; }
  static uint64_t offset_of(uint64_t piece) {
    const uint64_t in_group = piece % kPiecesOfGroup;
    return piece / kPiecesOfGroup * kGroupBytes +
           (in_group == 0 ? 0 : kLong + (in_group - 1) * kShort);
  }
  IoFile file;
  WriteTurns turns;
  std::atomic<uint64_t> next{0};
  std::atomic<unsigned> wrong{0};

  Task<void> write_pieces() {
    Worker* home = Worker::current();
    for (uint64_t i = next++; i < kGroups * kPiecesOfGroup; i = next++) {
      std::vector<char> bytes(bytes_of(i), byte_of(i));
      const iovec buffer{bytes.data(), bytes.size()};
      const ssize_t put = co_await turns.write(file, {&buffer, 1}, offset_of(i));
      if (put != static_cast<ssize_t>(bytes.size()) || Worker::current() != home) ++wrong;
    }
  }
};

TEST_P(AsyncTest, WritesTakeTurnsFromAllWorkers) {
  Runtime runtime(options(4));
  FILE* stream = std::tmpfile();
  TurnsTest test;
  test.file = {.fd = ::fileno(stream), .memory_backed = true};
  const auto all = [&]() -> Task<void> {
    TaskGroup group;
    for (unsigned i = 0; i < 32; ++i) group.spawn_on(runtime.worker(i % 4), test.write_pieces());
    co_await group.join();
  };
  runtime.run(all());
  EXPECT_EQ(test.wrong, 0u);
  std::vector<char> back(TurnsTest::kGroups * TurnsTest::kGroupBytes);
  ASSERT_EQ(::pread(test.file.fd, back.data(), back.size(), 0), static_cast<ssize_t>(back.size()));
  for (uint64_t i = 0; i < TurnsTest::kGroups * TurnsTest::kPiecesOfGroup; ++i) {
    const std::vector<char> bytes(TurnsTest::bytes_of(i), TurnsTest::byte_of(i));
    ASSERT_TRUE(std::equal(bytes.begin(), bytes.end(),
                           back.begin() + static_cast<ptrdiff_t>(TurnsTest::offset_of(i))))
        << "piece " << i;
  }
  std::fclose(stream);
}

TEST(AsyncCancel, IsSeenAsAnError) {
  CancelSource source;
  source.check();
  source.request();
  EXPECT_THROW(source.check(), Error);
}

INSTANTIATE_TEST_SUITE_P(Engines, AsyncTest,
                         testing::Values(EngineKind::kUring, EngineKind::kThreads),
                         [](const auto& chosen) {
                           return chosen.param == EngineKind::kUring ? "Uring" : "Threads";
                         });

}  // namespace
}  // namespace cairn
