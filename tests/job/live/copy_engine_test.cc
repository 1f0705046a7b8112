#include "job/live/copy_engine.h"

#include <atomic>
#include <chrono>

#include "job/live/jobs.h"
#include "support.h"

namespace cairn::live {
namespace {

using testing_support::World;

constexpr uint64_t kDiskBytes = uint64_t{1} << 30;
constexpr uint64_t kDataBytes = kDiskBytes / 2;

// A job on a disk of which the first half is data and the rest zeroes; it copies nothing.
class CountingJob : public Job, private CopyMethod {
 public:
  explicit CountingJob(Context& context)
      : Job(JobType::kBackup, {.id = "c", .speed = 0}), context_(context) {}

  std::atomic<uint64_t> looked_at{0};  // bytes of data
  std::atomic<uint64_t> zero_looks{0};
  std::atomic<uint64_t> copied{0};

 protected:
  Task<void> run() override {
    const auto wanted = std::make_shared<DirtyBitmap>("", kDiskBytes, 65536);
    wanted->mark(0, kDiskBytes);
    CopyMethod& method = *this;
    CopyEngine engine(*this, context_, wanted, method, CopySettings());
    co_await engine.run();
  }

 private:
  Task<CopyPiece> look(uint64_t offset, uint64_t max) override {
    CopyPiece piece{.offset = offset, .length = std::min(max, kDataBytes - offset % kDataBytes)};
    if (offset < kDataBytes) {
      looked_at += piece.length;
    } else {
      ++zero_looks;
      piece.kind = CopyPiece::Kind::kZero;
    }
    co_return piece;
  }
  Task<void> copy(CopyPiece piece, MutableByteSpan, JobSide*) override {
    copied += piece.length;
    co_return;
  }

  Context& context_;
};

TEST(CopyEngine, LooksNoFurtherThanItNeeds) {
  World world;
  Jobs jobs(world.context, [](const JobEvent&) {});
  const auto job = std::make_shared<CountingJob>(world.context);
  jobs.add(job, nullptr);
  jobs.start(job);
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!jobs.list().empty() && std::chrono::steady_clock::now() < limit)
    world.run(sleep_for(std::chrono::milliseconds(1)));
  EXPECT_EQ(job->copied, kDiskBytes);
  // The same data is looked at a few times, not once for each piece before it.
  EXPECT_LE(job->looked_at, kDataBytes * 20);
  EXPECT_LE(job->zero_looks, 4U);
  world.run(jobs.shutdown());
}

// What a user of the only worker gets to do while a job never waits.
TEST(CopyEngine, LetsOthersGoFirst) {
  World world(1);
  Jobs jobs(world.context, [](const JobEvent&) {});
  const auto job = std::make_shared<CountingJob>(world.context);
  jobs.add(job, nullptr);
  uint64_t turns = 0;
  const auto user = [&]() -> Task<void> {
    jobs.start(job);
    while (job->copied == 0) co_await yield_now();
    for (; job->copied < kDataBytes / 8; ++turns) co_await yield_now();
  };
  world.run(run_on(world.context.runtime().worker(0), user()));
  EXPECT_GE(turns, kDataBytes / 8 / CopySettings().most - 1);
  world.run(jobs.shutdown());
}

}  // namespace
}  // namespace cairn::live
