// What is kept of jobs is right at every moment at which power may be lost, whatever of the writes
// that nobody has flushed the disks have kept.
#include <atomic>
#include <map>
#include <thread>

#include "block/graph/graph.h"
#include "crash/replay.h"
#include "job/live/backup.h"
#include "job/live/jobs.h"
#include "job/live/mirror.h"
#include "job/live/progress.h"

namespace cairn::live {
namespace {

using namespace testing_support;

constexpr uint64_t kSize = 4 << 20;
constexpr uint64_t kBlock = 4096;

// A store that remembers what it said at each moment; null: nothing any more.
class TimedStore : public ProgressStore {
 public:
  using Clock = std::chrono::steady_clock;
  Task<bool> record(std::string, bool open, Runs runs) override {
    const std::lock_guard lock(mutex_);
    if (state_ != nullptr) {
      auto next = std::make_shared<DirtyBitmap>("", kSize, state_->granularity());
      next->merge(*state_);
      for (const auto& [offset, length] : runs)
        open ? next->mark(offset, length) : next->clean(offset, length);
      set(next);
    }
    co_return true;
  }
  bool suspends() const override { return false; }
  Task<bool> end(std::string, bool) override {
    const std::lock_guard lock(mutex_);
    set(nullptr);
    co_return true;
  }
  // The whole is stored.
  void store(const JobProgress& progress) {
    const std::lock_guard lock(mutex_);
    if (progress.known()) set(progress.open());
  }
  // What it said at WHEN.
  std::shared_ptr<DirtyBitmap> at(Clock::time_point when) const {
    const auto next = states_.upper_bound(when);
    return next == states_.begin() ? nullptr : std::prev(next)->second;
  }

 private:
  void set(std::shared_ptr<DirtyBitmap> state) {
    state_ = std::move(state);
    states_[Clock::now()] = state_;
  }
  std::mutex mutex_;
  std::shared_ptr<DirtyBitmap> state_;
  std::map<Clock::time_point, std::shared_ptr<DirtyBitmap>> states_;
};

// A source and a target whose changes are recorded, and a user who writes to the source.
class Disks {
 public:
  Disks() : jobs(world.context, [](const JobEvent&) {}) {
    for (const std::string name : {"source", "target"}) {
      std::vector<std::byte> bytes(kSize);
      if (name == "source") bytes = random_bytes(dice, kSize);
      store_file(folder.file(name), bytes);
      start[name] = std::move(bytes);
      world.run(add(name));
    }
  }
  void begin(const std::shared_ptr<DiskJob>& job) {
    const auto work = [&]() -> Task<void> {
      const auto lock = co_await graph.change();
      co_await launch(jobs, job);
    };
    world.run(work());
    progress = job->progress();
    store->store(*progress);
  }
  // As a daemon does it once a second.
  void settle() {
    const auto work = [&]() -> Task<void> {
      const auto lock = co_await graph.change();
      co_await progress->settle();
    };
    world.run(work());
    store->store(*progress);
  }
  // Writes to PART of the disk while WORK, on another thread, is done.
  template <class Work>
  void write_during(uint64_t part, Work work) {
    std::atomic<bool> over{false};
    std::thread writer([&] {
      std::mt19937_64 random(part);
      while (!over) {
        const uint64_t offset = random() % (part / kBlock) * kBlock;
        world.run(user->write(offset, random_bytes(random, kBlock)));
        if (random() % 8 == 0) world.run(user->flush());
        world.run(sleep_for(std::chrono::microseconds(random() % 4000)));
      }
    });
    work();
    over = true;
    writer.join();
  }
  void settle_for(int turns) {
    for (int turn = 0; turn < turns; ++turn) {
      world.run(sleep_for(std::chrono::milliseconds(2)));
      settle();
    }
  }
  // Moments at which power may be lost: after each change of the source.
  std::vector<TimedStore::Clock::time_point> moments() const {
    std::vector<TimedStore::Clock::time_point> times;
    for (const RecordedEvent& event : recorded.at("source")) times.push_back(event.when);
    return times;
  }
  // The events of NAME that had ended at WHEN, of which those that were not flushed by chance.
  std::vector<std::byte> lost_power(const std::string& name, TimedStore::Clock::time_point when) {
    const std::vector<RecordedEvent>& events = recorded[name];
    const auto count = static_cast<size_t>(
        std::count_if(events.begin(), events.end(),
                      [&](const RecordedEvent& event) { return event.when <= when; }));
    return replay(start[name], events, count, &dice);
  }
  void finish() {
    for (const std::string name : {"source", "target"})
      recorded[name] = dynamic_cast<const RecordNode&>(*graph.get(name)->child("file")).events();
    const auto work = [&]() -> Task<void> {
      co_await jobs.shutdown();
      const auto lock = co_await graph.change();
      co_await graph.detach(user);
      user = nullptr;
      co_await graph.close();
    };
    world.run(work());
  }

  Folder folder;
  World world;
  Graph graph{world.context};
  Jobs jobs;
  RootPtr user;
  std::mt19937_64 dice{20261130};
  std::shared_ptr<TimedStore> store = std::make_shared<TimedStore>();
  std::shared_ptr<JobProgress> progress;
  std::map<std::string, std::vector<std::byte>> start;
  std::map<std::string, std::vector<RecordedEvent>> recorded;

 private:
  Task<void> add(std::string name) {
    const auto lock = co_await graph.change();
    const NodePtr node = co_await graph.add(Options::parse_list(
        "driver=raw,node-name=" + name + ",file.driver=record,file.file.driver=file," +
        "file.file.filename=" + folder.file(name)));
    if (name != "source") co_return;
    NodeUse use;
    use.takes = Permissions::kConsistentRead | Permissions::kWrite;
    user = co_await graph.attach(node, std::move(use));
  }
};

bool equal(const std::vector<std::byte>& a, const std::vector<std::byte>& b, uint64_t offset,
           uint64_t length) {
  const auto from = static_cast<ptrdiff_t>(offset);
  return std::equal(a.begin() + from, a.begin() + from + static_cast<ptrdiff_t>(length),
                    b.begin() + from);
}

// Bytes that are in one state of OPEN, in runs.
template <class Check>
void each_run(const DirtyBitmap& open, Check check) {
  for (uint64_t at = 0; at < kSize;) {
    const DirtyBitmap::Run run = open.run_at(at, kSize - at);
    check(at, run.length, run.dirty);
    at += run.length;
  }
}

TEST(KeptProgress, SaysEqualOnlyWhatIs) {
  for (const bool blocking : {false, true}) {
    Disks disks;
    MirrorRequest request;
    request.source = disks.graph.get("source");
    request.target = disks.graph.get("target");
    request.store = disks.store;
    request.write_blocking = blocking;
    disks.begin(std::make_shared<MirrorJob>(JobType::kMirror, JobOptions{.id = "m"}, disks.graph,
                                            std::move(request)));
    disks.write_during(kSize / 2, [&] { disks.settle_for(60); });
    disks.finish();
    uint64_t said_equal = 0;
    for (const auto when : disks.moments()) {
      const auto open = disks.store->at(when);
      if (open == nullptr) continue;
      const auto source = disks.lost_power("source", when);
      const auto target = disks.lost_power("target", when);
      each_run(*open, [&](uint64_t at, uint64_t length, bool dirty) {
        if (dirty) return;
        said_equal += length;
        EXPECT_TRUE(equal(source, target, at, length)) << at;
      });
    }
    EXPECT_GT(said_equal, kSize);
  }
}

TEST(KeptProgress, OfABackupSaysWhereTheMomentIs) {
  Disks disks;
  BackupRequest request;
  request.source = disks.graph.get("source");
  request.target = disks.graph.get("target");
  request.store = disks.store;
  disks.begin(std::make_shared<BackupJob>(JobOptions{.id = "b", .speed = 8 << 20}, disks.graph,
                                          std::move(request)));
  disks.write_during(kSize, [&] { disks.settle_for(40); });
  disks.finish();
  uint64_t overwritten = 0;
  const std::vector<std::byte>& moment = disks.start["source"];
  for (const auto when : disks.moments()) {
    const auto open = disks.store->at(when);
    if (open == nullptr) continue;
    const auto source = disks.lost_power("source", when);
    const auto target = disks.lost_power("target", when);
    each_run(*open, [&](uint64_t at, uint64_t length, bool dirty) {
      EXPECT_TRUE(equal(dirty ? source : target, moment, at, length)) << at;
      if (!equal(source, moment, at, length)) overwritten += length;
    });
  }
  EXPECT_GT(overwritten, 0u);
}

TEST(KeptProgress, IsContinued) {
  Disks disks;
  MirrorRequest request;
  request.source = disks.graph.get("source");
  request.target = disks.graph.get("target");
  request.store = disks.store;
  request.remaining = std::make_shared<DirtyBitmap>("", kSize, mirror_region_bytes(kSize));
  request.remaining->mark(1 << 20, 1);
  disks.begin(std::make_shared<MirrorJob>(JobType::kMirror, JobOptions{.id = "m"}, disks.graph,
                                          std::move(request)));
  const JobPtr job = disks.jobs.get("m");
  while (job->info().status != JobStatus::kReady)
    disks.world.run(sleep_for(std::chrono::milliseconds(1)));
  EXPECT_EQ(job->info().total, uint64_t{1} << 20);
  disks.settle();
  EXPECT_EQ(disks.progress->open()->dirty_bytes(), 0u);
  // One byte makes its region unequal before it is written, and no other.
  disks.world.run(disks.user->write(3 << 20, std::vector<std::byte>(1)));
  const auto open = disks.store->at(TimedStore::Clock::now());
  EXPECT_EQ(open->dirty_bytes(), uint64_t{1} << 20);
  EXPECT_TRUE(open->run_at(3 << 20, 1).dirty);
  disks.finish();
  EXPECT_EQ(disks.store->at(TimedStore::Clock::now()), nullptr);
}

TEST(KeptProgress, HasFewBitsForAnyDisk) {
  EXPECT_EQ(mirror_region_bytes(1), uint64_t{1} << 20);
  EXPECT_EQ(mirror_region_bytes(uint64_t{1} << 40), uint64_t{64} << 20);
  EXPECT_EQ(mirror_region_bytes((uint64_t{1} << 40) + 1), uint64_t{128} << 20);
  EXPECT_LE(kept_backup_cluster(uint64_t{1} << 36), uint64_t{65536});
  EXPECT_EQ(kept_backup_cluster(uint64_t{1} << 40), uint64_t{1} << 20);
}

}  // namespace
}  // namespace cairn::live
