// A crash while bitmaps are marked in use, recorded, stored, changed or removed: what looks
// complete afterwards marks every write that can be seen.
#include <map>
#include <set>

#include "block/capabilities/bitmap_store.h"
#include "block/capabilities/checkable.h"
#include "crash/replay.h"

namespace cairn {
namespace {

using namespace testing_support;

constexpr uint64_t kGranularity = 4096;

class BitmapCrash : public testing::TestWithParam<const char*> {
 protected:
  NodePtr open_recorded(const std::string& path) {
    OpenRequest request;
    request.options = Options::parse_list(
        "driver=qcow2,file.driver=record,file.file.driver=file,file.file.filename=" + path);
    request.image_opts = true;
    request.flags.writable = true;
    request.flags.discard_unmap = true;
    return world_.run(open_node(world_.context, std::move(request)));
  }

  // One opening of the image with everything that a user may do to bitmaps.
  void work(const std::string& path, unsigned seed) {
    start_ = load_file(path);
    NodePtr node = open_recorded(path);
    auto* recorder = dynamic_cast<RecordNode*>(node->file());
    ASSERT_NE(recorder, nullptr);
    std::mt19937_64 random(seed);
    before_.assign(kDiskBytes, std::byte{0});
    world_.run(node->read(0, before_));
    for (int i = 0; i < 12; ++i) {
      const uint64_t offset = random() % (kDiskBytes - 20'000);
      const auto data = random_bytes(random, 1 + random() % 20'000);
      if (i % 4 == 3)
        world_.run(node->write_zeroes(offset, data.size()));
      else
        world_.run(node->write(offset, data));
      if (i % 5 == 4) world_.run(node->flush());
    }
    if (seed % 3 == 0) {
      node->bitmaps().remove("b");
      add_bitmap(*node, {.name = "new", .granularity = 512, .persistent = true});
    } else if (seed % 3 == 1) {
      node->bitmaps().get("off")->set_enabled(true);
    }
    // The recorder goes with its node: what closing writes must be taken from it before.
    NodePtr file = node->children().front().node;
    world_.run(node->close());
    events_ = recorder->events();
    node.reset();
  }

  std::vector<std::byte> after(size_t count, std::mt19937_64* chance) const {
    return replay(start_, events_, count, chance);
  }

  void examine(const std::vector<std::byte>& file, size_t count) {
    const std::string path = folder_.file("crashed");
    std::ofstream(path, std::ios::binary | std::ios::trunc)
        .write(reinterpret_cast<const char*>(file.data()),
               static_cast<std::streamsize>(file.size()));
    NodePtr node = world_.open(path, "qcow2", false);
    std::string findings;
    CheckRequest request;
    request.report = [&](std::string_view line) { findings += std::string(line) + "\n"; };
    const CheckResult result = world_.run(check_image(*node, request));
    ASSERT_EQ(result.corruptions, 0u) << "after event " << count << ":\n" << findings;
    std::vector<std::byte> content(kDiskBytes);
    world_.run(node->read(0, content));
    const DirtyBitmapPtr bitmap = node->bitmaps().find("b");
    if (bitmap && !bitmap->inconsistent())
      for (uint64_t at = 0; at < kDiskBytes; ++at)
        if (content[at] != before_[at]) {
          ASSERT_TRUE(bitmap->run_at(at, 1).dirty) << "byte " << at << " after event " << count;
        }
    world_.run(node->close());
  }

  World world_{1};
  Folder folder_;
  std::vector<std::byte> start_, before_;
  std::vector<RecordedEvent> events_;
};

TEST_P(BitmapCrash, NeverLeavesABitmapThatMissesAWrite) {
  const std::string path = folder_.file("disk");
  world_.create(path, "qcow2", kDiskBytes, GetParam());
  NodePtr node = world_.open(path, "qcow2", true);
  add_bitmap(*node, {.name = "b", .granularity = kGranularity, .persistent = true});
  add_bitmap(*node, {.name = "off", .granularity = 512, .persistent = true, .enabled = false});
  world_.close(node);
  std::mt19937_64 chance(11);
  for (unsigned seed = 1; seed <= 3; ++seed) {
    work(path, seed);
    if (HasFatalFailure()) return;
    ASSERT_GT(events_.size(), 20u);
    for (size_t count = 0; count <= events_.size(); ++count) {
      if (count % 3 != 0 && count + 40 < events_.size()) continue;  // closing: every point
      examine(after(count, nullptr), count);
      if (HasFatalFailure()) return;
      examine(after(count, &chance), count);
      if (HasFatalFailure()) return;
    }
  }
}

// A failure of the file while bitmaps are stored is reported and leaves them in use.
TEST_P(BitmapCrash, FailedStoringIsReported) {
  const std::string path = folder_.file("disk");
  unsigned failures = 0;
  for (unsigned point = 0; point < 40; ++point) {
    world_.create(path, "qcow2", kDiskBytes, GetParam());
    NodePtr node = world_.open(path, "qcow2", true);
    add_bitmap(*node, {.name = "b", .granularity = kGranularity, .persistent = true});
    world_.close(node);
    OpenRequest request;
    request.options = Options::parse_list(
        "driver=qcow2,file.driver=fault,file.on=write,file.errno=28,file.after=" +
        std::to_string(point) + ",file.file.driver=file,file.file.filename=" + path);
    request.image_opts = true;
    request.flags.writable = true;
    bool failed = false;
    try {
      node = world_.run(open_node(world_.context, std::move(request)));
      const std::vector<std::byte> data(5000, std::byte{7});
      try {
        world_.run(node->write(100'000, data));
      } catch (const Error&) {
        failed = true;
      }
      world_.run(node->close());
    } catch (const Error& error) {
      EXPECT_EQ(error.error_number(), ENOSPC) << error.message();
      failed = true;
    }
    node.reset();
    failures += failed ? 1 : 0;
    node = world_.open(path, "qcow2", false);
    const DirtyBitmapPtr bitmap = node->bitmaps().find("b");
    ASSERT_TRUE(bitmap);
    std::vector<std::byte> content(5000);
    world_.run(node->read(100'000, content));
    if (!bitmap->inconsistent() && content.front() != std::byte{0}) {
      EXPECT_EQ(bitmap->dirty_bytes(), 8192u) << point;
    }
    if (!failed) {
      EXPECT_FALSE(bitmap->inconsistent()) << point;
    }
    CheckRequest check;
    const CheckResult result = world_.run(check_image(*node, check));
    EXPECT_EQ(result.corruptions, 0u) << point;
    world_.close(node);
    if (!failed) break;
  }
  EXPECT_GT(failures, 3u);
}

INSTANTIATE_TEST_SUITE_P(Layouts, BitmapCrash,
                         testing::Values("cluster_size=512", "cluster_size=64k",
                                         "cluster_size=16k,extended_l2=on"),
                         [](const auto& chosen) {
                           return "layout" + std::to_string(chosen.index);
                         });

}  // namespace
}  // namespace cairn
