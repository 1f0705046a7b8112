// What progress says is equal while requests are under way.
#include "job/live/progress.h"

#include <functional>

#include "job/live/job_filter.h"
#include "support.h"

namespace cairn::live {
namespace {

using testing_support::World;

constexpr uint64_t kRegion = 1 << 20;
constexpr uint64_t kDisk = 4 * kRegion;
constexpr uint64_t kMarked = 65536;

// A disk in which nothing is, at which something happens while it is flushed.
class FlushedDisk : public JobFilter {
 public:
  explicit FlushedDisk(World& world)
      : JobFilter("copy-before-write",
                  world.open("", "", true, "driver=null-co,size=" + std::to_string(kDisk)),
                  "file") {}
  std::function<void()> meanwhile = [] {};

 protected:
  Task<void> do_flush() override {
    meanwhile();
    co_return;
  }
};

class NoStore : public ProgressStore {
 public:
  Task<bool> record(std::string, bool, Runs) override { co_return true; }
  bool suspends() const override { return false; }
  Task<bool> end(std::string, bool) override { co_return true; }
};

// A mirror that has copied everything, and of which nothing was settled yet.
struct Copied {
  Copied() { progress.set_known(); }
  Runs open_after_settling() {
    world.run(progress.settle());
    return dirty_runs(*progress.open());
  }

  World world;
  std::shared_ptr<FlushedDisk> source = std::make_shared<FlushedDisk>(world);
  std::shared_ptr<FlushedDisk> target = std::make_shared<FlushedDisk>(world);
  DirtyBitmapPtr dirty = std::make_shared<DirtyBitmap>("", kDisk, kMarked);
  MirrorProgress progress{std::make_shared<NoStore>(), "m", source, target, dirty, nullptr};
};

const Runs kSecondRegion{{kRegion, kRegion}};

// It marks the bitmap when it ends.
TEST(MirrorProgress, ARegionThatIsBeingWrittenStaysOpen) {
  Copied mirror;
  mirror.world.run(mirror.progress.before(kRegion, 1));
  EXPECT_EQ(mirror.open_after_settling(), kSecondRegion);
  EXPECT_EQ(mirror.open_after_settling(), kSecondRegion);
  mirror.progress.after(kRegion, 1);
  EXPECT_EQ(mirror.open_after_settling(), Runs());
}

// It is clean in the bitmap from the moment in which it was taken.
TEST(MirrorProgress, ARegionThatIsBeingCopiedStaysOpen) {
  Copied mirror;
  mirror.progress.taken(2 * kRegion - 1, 1);
  EXPECT_EQ(mirror.open_after_settling(), kSecondRegion);
  EXPECT_EQ(mirror.open_after_settling(), kSecondRegion);
  mirror.progress.dropped(2 * kRegion - 1, 1);
  EXPECT_EQ(mirror.open_after_settling(), Runs());
}

// What it wrote may not be in what was flushed.
TEST(MirrorProgress, ARegionThatIsWrittenDuringAFlushStaysOpen) {
  for (const auto side : {&Copied::source, &Copied::target}) {
    Copied mirror;
    (mirror.*side)->meanwhile = [&] {
      mirror.progress.taken(kRegion, kRegion);
      mirror.progress.dropped(kRegion, kRegion);
    };
    EXPECT_EQ(mirror.open_after_settling(), kSecondRegion);
    (mirror.*side)->meanwhile = [] {};
    EXPECT_EQ(mirror.open_after_settling(), Runs());
  }
}

// Before it is overwritten in the source its copy is stable in the target.
TEST(BackupProgress, AClusterThatIsBeingCopiedStaysOpen) {
  World world;
  const auto target = std::make_shared<FlushedDisk>(world);
  const auto left = std::make_shared<DirtyBitmap>("", kDisk, kRegion);
  left->mark(0, kDisk);
  BackupProgress progress(std::make_shared<NoStore>(), "b", target, left);
  left->clean(0, kRegion);
  // The next one is copied after what is flushed was found.
  target->meanwhile = [&] { left->clean(kRegion, kRegion); };
  world.run(progress.settle());
  EXPECT_EQ(dirty_runs(*progress.open()), (Runs{{kRegion, kDisk - kRegion}}));
}

}  // namespace
}  // namespace cairn::live
