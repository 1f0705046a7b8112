// Any thread may call into a Runtime: guests, residents, signals and forks.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <barrier>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "async/async.h"
#include "base/error.h"
#include "base/own_fd.h"

namespace cairn {
namespace {

using namespace std::chrono_literals;

constexpr unsigned kThreads = 8;
constexpr size_t kBlock = 4096;

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CAIRN_TEST_TSAN 1
#endif
#endif

class GuestTest : public testing::TestWithParam<EngineKind> {
 protected:
  RuntimeOptions options(unsigned workers) { return {.workers = workers, .engine = GetParam()}; }
  // Calls WORK with the numbers of COUNT threads and waits for them.
  template <class F>
  void on_threads(unsigned count, F work) {
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < count; ++i) threads.emplace_back(work, i);
    for (std::thread& thread : threads) thread.join();
  }
};

// A file without a name on a real file system, so that calls go through the engine.
OwnFd make_file() {
  std::string name = "/var/tmp/cairn-guest-XXXXXX";
  OwnFd fd(::mkostemp(name.data(), O_CLOEXEC));
  ::unlink(name.c_str());
  return fd;
}

Task<void> write_and_read(int fd, unsigned number, std::atomic<unsigned>& wrong) {
  std::vector<std::byte> bytes(kBlock, static_cast<std::byte>(number)), back(kBlock);
  const iovec out{bytes.data(), bytes.size()};
  const iovec in{back.data(), back.size()};
  const ssize_t put = co_await io_writev({.fd = fd}, {&out, 1}, number * kBlock);
  const int synced = co_await io_fdatasync({.fd = fd});
  const ssize_t got = co_await io_readv({.fd = fd}, {&in, 1}, number * kBlock);
  if (put != ssize_t{kBlock} || synced != 0 || got != ssize_t{kBlock} || back != bytes) ++wrong;
}

TEST_P(GuestTest, HasNoNumberAndAHomeThatHasOne) {
  Runtime runtime(options(2));
  EXPECT_EQ(Worker::current(), nullptr);
  runtime.run([](Runtime& all) -> Task<void> {
    Worker* guest = Worker::current();
    EXPECT_FALSE(guest->resident_index());
    // Homes are given in turn.
    Worker& first = guest->home();
    Worker& second = guest->home();
    EXPECT_NE(&first, &second);
    EXPECT_EQ(&first, &all.worker(first.resident_index().value()));
    co_await run_on(first, [](Worker& here) -> Task<void> {
      EXPECT_EQ(Worker::current(), &here);
      EXPECT_EQ(&here.home(), &here);
      co_return;
    }(first));
    EXPECT_EQ(Worker::current(), guest);
  }(runtime));
  EXPECT_EQ(Worker::current(), nullptr);
}

TEST_P(GuestTest, ManyThreadsCallAtOnce) {
  Runtime runtime(options(2));
  const OwnFd file = make_file();
  std::atomic<unsigned> wrong{0}, done{0};
  on_threads(kThreads, [&](unsigned number) {
    for (unsigned round = 0; round < 60; ++round) {
      runtime.run([](unsigned own, int fd, std::atomic<unsigned>& bad) -> Task<void> {
        Worker* here = Worker::current();
        co_await yield_now();
        co_await write_and_read(fd, own, bad);
        co_await run_blocking([] { std::this_thread::yield(); });
        if (own % 4 == 0) co_await sleep_for(50us);
        if (Worker::current() != here) ++bad;
      }(number, file.get(), wrong));
      ++done;
    }
  });
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(done, kThreads * 60);
}

// Of more threads than there are rings each still gets its work done.
TEST_P(GuestTest, MoreThreadsThanRings) {
  constexpr unsigned kMany = 24;
  Runtime runtime(options(1));
  const OwnFd file = make_file();
  std::atomic<unsigned> wrong{0};
  std::barrier all(kMany);
  on_threads(kMany, [&](unsigned number) {
    const auto work = [](std::barrier<>& others, int fd, unsigned own,
                         std::atomic<unsigned>& bad) -> Task<void> {
      others.arrive_and_wait();
      co_await write_and_read(fd, own, bad);
    };
    for (int round = 0; round < 3; ++round) runtime.run(work(all, file.get(), number, wrong));
  });
  EXPECT_EQ(wrong, 0u);
}

TEST_P(GuestTest, LocksPassBetweenGuestsAndResidents) {
  Runtime runtime(options(2));
  Mutex mutex;
  RwLock gate;
  RangeLock ranges;
  unsigned counter = 0;
  std::atomic<unsigned> overlaps{0};
  const auto work = [](Mutex& lock, RwLock& door, RangeLock& range, unsigned& count,
                       std::atomic<unsigned>& bad, unsigned own) -> Task<void> {
    for (unsigned i = 0; i < 40; ++i) {
      const RwLock::Guard inside = co_await door.shared();
      RangeLock::Guard part;
      co_await range.acquire(part, own % 3 * 10, 15, true);
      const Mutex::Guard guard = co_await lock.lock();
      const unsigned before = count;
      co_await yield_now();
      if (i % 8 == 0) co_await sleep_for(20us);
      if (count != before) ++bad;
      count = before + 1;
    }
  };
  on_threads(kThreads, [&](unsigned number) {
    runtime.run([](Runtime& all, Task<void> here, Task<void> there,
                   unsigned own) -> Task<void> {
      TaskGroup group;
      group.spawn(std::move(here));
      group.spawn_on(all.worker(own % all.worker_count()), std::move(there));
      co_await group.join();
    }(runtime, work(mutex, gate, ranges, counter, overlaps, number),
                                 work(mutex, gate, ranges, counter, overlaps, number + 1), number));
  });
  EXPECT_EQ(overlaps, 0u);
  EXPECT_EQ(counter, 2 * kThreads * 40);
}

TEST_P(GuestTest, ErrorsReachTheThreadThatCalled) {
  Runtime runtime(options(1));
  std::atomic<unsigned> right{0};
  on_threads(kThreads, [&](unsigned number) {
    for (int round = 0; round < 50; ++round) {
      try {
        runtime.run([](unsigned own) -> Task<unsigned> {
          co_await run_blocking([] {});
          throw Error(ErrorKind::kIo, std::to_string(own));
        }(number));
      } catch (const Error& error) {
        right += error.message() == std::to_string(number);
      }
    }
  });
  EXPECT_EQ(right, kThreads * 50);
}

// Residents work while no thread is inside of a call.
TEST_P(GuestTest, ResidentsNeedNobody) {
  Runtime runtime(options(2));
  std::promise<unsigned> ended;
  spawn_detached_on(
      runtime.worker(0), [](Runtime& all, std::promise<unsigned>& told) -> Task<void> {
        std::atomic<unsigned> parts{0};
        TaskGroup group;
        for (unsigned i = 0; i < 16; ++i)
          group.spawn_on(all.worker(i % 2), [](std::atomic<unsigned>& count) -> Task<void> {
            co_await sleep_for(1ms);
            co_await run_blocking([&] { ++count; });
          }(parts));
        co_await group.join();
        told.set_value(parts);
      }(runtime, ended));
  std::future<unsigned> result = ended.get_future();
  ASSERT_EQ(result.wait_for(30s), std::future_status::ready);
  EXPECT_EQ(result.get(), 16u);
}

// What one call leaves to its home serves the calls of others.
TEST_P(GuestTest, WorkOutlivesTheCallThatStartedIt) {
  Runtime runtime(options(1));
  const auto served = std::make_shared<Semaphore>(0);
  std::thread([&] {
    runtime.run([](std::shared_ptr<Semaphore> units) -> Task<void> {
      spawn_detached_on(Worker::current()->home(),
                        [](std::shared_ptr<Semaphore> own) -> Task<void> {
                          for (unsigned i = 0; i < kThreads; ++i) {
                            co_await sleep_for(1ms);
                            own->release();
                          }
                        }(units));
      co_return;
    }(served));
  }).join();
  std::atomic<unsigned> got{0};
  on_threads(kThreads, [&](unsigned) {
    runtime.run(
        [](std::shared_ptr<Semaphore> units) -> Task<void> { co_await units->acquire(); }(served));
    ++got;
  });
  EXPECT_EQ(got, kThreads);
}

TEST_P(GuestTest, CancellingWakesEveryThread) {
  Runtime runtime(options(1));
  CancelSource cancel;
  std::atomic<unsigned> woken{0}, ready{0};
  std::thread ender([&] {
    while (ready != kThreads) std::this_thread::yield();
    cancel.request();
  });
  on_threads(kThreads, [&](unsigned) {
    ++ready;
    runtime.run([](CancelSource& source) -> Task<void> {
      co_await await_ready(source.descriptor(), POLLIN);
    }(cancel));
    woken += cancel.requested();
  });
  ender.join();
  EXPECT_EQ(woken, kThreads);
}

// --- signals ---

// The blocked signals of each thread that the library has made.
std::vector<uint64_t> masks_of_library_threads() {
  std::vector<uint64_t> masks;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream status(task.path() / "status");
    std::string line, name;
    while (std::getline(status, line)) {
      if (line.starts_with("Name:")) name = line.substr(line.find_first_not_of(" \t", 5));
      if (line.starts_with("SigBlk:") && name.starts_with("cairn-"))
        masks.push_back(std::stoull(line.substr(7), nullptr, 16));
    }
  }
  return masks;
}

std::atomic<pid_t> handled_by{0};

TEST_P(GuestTest, SignalsAreForTheProgram) {
  sigset_t before = {}, after = {};
  ::pthread_sigmask(SIG_SETMASK, nullptr, &before);
  Runtime runtime(options(2));
  // Nobody's thread is ready for them but this one.
  struct sigaction action = {}, old = {};
  action.sa_handler = [](int) { handled_by = ::gettid(); };
  ::sigaction(SIGUSR1, &action, &old);
  for (int round = 0; round < 20; ++round) {
    runtime.run([](Runtime& all) -> Task<void> {
      TaskGroup group;
      for (unsigned i = 0; i < 4; ++i)
        group.spawn_on(all.worker(i % 2), []() -> Task<void> {
          co_await run_blocking([] { std::this_thread::sleep_for(100us); });
        }());
      co_await group.join();
    }(runtime));
    handled_by = 0;
    ::kill(::getpid(), SIGUSR1);
    for (int wait = 0; handled_by == 0 && wait < 10000; ++wait) std::this_thread::sleep_for(1ms);
    EXPECT_EQ(handled_by, ::gettid());
  }
  ::sigaction(SIGUSR1, &old, nullptr);
  const std::vector<uint64_t> masks = masks_of_library_threads();
  EXPECT_GE(masks.size(), 3u);  // two workers and the pool
  const auto bit = [](int signal) { return uint64_t{1} << (signal - 1); };
  for (const uint64_t mask : masks) {
    for (const int others : {SIGINT, SIGTERM, SIGHUP, SIGCHLD, SIGALRM, SIGUSR1, SIGPIPE})
      EXPECT_NE(mask & bit(others), 0u) << others;
    for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) EXPECT_EQ(mask & bit(own), 0u) << own;
  }
  ::pthread_sigmask(SIG_SETMASK, nullptr, &after);
  EXPECT_EQ(std::memcmp(&before, &after, sizeof before), 0);
}

// --- fork ---

// The exit code of a child that does WORK; 99 when it hung.
template <class F>
int in_child(F work) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);
    ::_exit(work());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

bool is_forked(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.kind() == ErrorKind::kForked;
  }
  return false;
}

TEST_P(GuestTest, CallsInAForkedChildFailAtOnce) {
  auto runtime = std::make_unique<Runtime>(options(2));
  const auto nothing = []() -> Task<void> { co_return; };
  // All threads are there, and one holds what it likes.
  runtime->run([](Runtime& all) -> Task<void> {
    co_await run_on(all.worker(1), []() -> Task<void> { co_await run_blocking([] {}); }());
  }(*runtime));
  const int code = in_child([&] {
    if (!is_forked([&] { runtime->run(nothing()); })) return 1;
    if (!is_forked([&] { runtime->worker(0); })) return 2;
    if (!is_forked([&] { runtime->pool(); })) return 3;
    runtime.reset();  // waits for nobody
    return 0;
  });
  EXPECT_EQ(code, 0);
  runtime->run(nothing());
}

#ifndef CAIRN_TEST_TSAN  // which has no threads in the child of a process with threads
TEST_P(GuestTest, AChildMayHaveARuntimeOfItsOwn) {
  Runtime runtime(options(1));
  runtime.run([]() -> Task<void> { co_await run_blocking([] {}); }());
  // One that was made before the fork and not used has nothing that could be missing.
  Runtime unused(options(2));
  const auto work = [](Runtime& all) -> Task<int> {
    int sum = co_await run_on(all.worker(1), []() -> Task<int> { co_return 20; }());
    co_await run_blocking([&] { sum += 22; });
    co_return sum;
  };
  EXPECT_EQ(in_child([&] { return unused.run(work(unused)); }), 42);
  EXPECT_EQ(in_child([&] {
              Runtime own(options(2));
              return own.run(work(own));
            }),
            42);
}
#endif

INSTANTIATE_TEST_SUITE_P(Engines, GuestTest,
                         testing::Values(EngineKind::kAuto, EngineKind::kThreads),
                         [](const auto& which) {
                           return which.param == EngineKind::kAuto ? "Auto" : "Threads";
                         });

}  // namespace
}  // namespace cairn
