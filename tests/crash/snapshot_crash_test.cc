// A crash while a snapshot is made, applied or deleted: the image is as it was before or as it was
// meant to be; its counters and flags are exact.
#include <cstdlib>

#include "block/capabilities/checkable.h"
#include "block/capabilities/snapshot_store.h"
#include "crash/replay.h"

namespace cairn {
namespace {

using namespace testing_support;

class SnapshotCrash : public testing::TestWithParam<const char*> {
 protected:
  std::vector<std::byte> after(size_t count, std::mt19937_64* chance) const {
    return replay(start_, events_, count, chance);
  }

  static size_t snapshots_of(const Node& node) {
    const Value list = snapshots_info_of(node);
    const auto* array = list.get_if<Value::Array>();
    return array == nullptr ? 0 : array->size();
  }

  std::vector<std::byte> content_of(Node& node) {
    std::vector<std::byte> content(node.length());
    world_.run(node.read(0, content));
    return content;
  }

  // Does WHAT ('c', 'a' or 'd') under a recorder and looks at what crashes leave.
  void crash_during(char what, const std::string& path) {
    start_ = load_file(path);
    OpenRequest request;
    request.options = Options::parse_list(
        "driver=qcow2,file.driver=record,file.file.driver=file,file.file.filename=" + path);
    request.image_opts = true;
    request.flags.writable = true;
    NodePtr node = world_.run(open_node(world_.context, std::move(request)));
    auto* recorder = dynamic_cast<RecordNode*>(node->file());
    ASSERT_NE(recorder, nullptr);
    const std::vector<std::byte> before = content_of(*node);
    const size_t snapshots_before = snapshots_of(*node);
    if (what == 'c') world_.run(create_snapshot(*node, "new"));
    if (what == 'a') world_.run(apply_snapshot(*node, "first"));
    if (what == 'd') world_.run(delete_snapshot(*node, "first"));
    const std::vector<std::byte> wanted = content_of(*node);
    const size_t snapshots_wanted = snapshots_of(*node);
    events_ = recorder->events();
    world_.run(node->close());
    node.reset();

    std::mt19937_64 chance(3);
    bool old_seen = false;
    bool new_seen = false;
    for (size_t count = 0; count <= events_.size(); ++count) {
      for (int round = 0; round < 3; ++round) {
        const auto file = after(count, round == 0 ? nullptr : &chance);
        const std::string crashed = folder_.file("crashed");
        std::ofstream(crashed, std::ios::binary | std::ios::trunc)
            .write(reinterpret_cast<const char*>(file.data()),
                   static_cast<std::streamsize>(file.size()));
        NodePtr left = world_.open(crashed, "qcow2", false);
        std::string findings;
        CheckRequest check;
        check.report = [&](std::string_view line) { findings += std::string(line) + "\n"; };
        const CheckResult result = world_.run(check_image(*left, check));
        ASSERT_EQ(result.corruptions, 0u) << what << " event " << count << "\n" << findings;
        ASSERT_EQ(result.leaks, 0u) << what << " event " << count << "\n" << findings;
        const auto content = content_of(*left);
        const size_t snapshots = snapshots_of(*left);
        const bool is_old = content == before && snapshots == snapshots_before;
        const bool is_new = content == wanted && snapshots == snapshots_wanted;
        ASSERT_TRUE(is_old || is_new) << what << " event " << count;
        old_seen = old_seen || is_old;
        new_seen = new_seen || is_new;
        world_.close(left);
        if (round != 0 || count % 8 != 0) continue;
        const std::string command = "qemu-img check -q -f qcow2 " + crashed + " >/dev/null 2>&1";
        const int code = std::system(command.c_str());
        ASSERT_TRUE(WIFEXITED(code) && WEXITSTATUS(code) == 0) << what << " event " << count;
      }
    }
    EXPECT_TRUE(old_seen && new_seen) << what;
  }

  World world_{1};
  Folder folder_;
  std::vector<std::byte> start_;
  std::vector<RecordedEvent> events_;
};

TEST_P(SnapshotCrash, LeavesTheOldOrTheNewState) {
  const std::string path = folder_.file("disk");
  world_.create(path, "qcow2", kDiskBytes, GetParam());
  NodePtr node = world_.open(path, "qcow2", true);
  std::mt19937_64 random(9);
  const auto scatter = [&] {
    for (int i = 0; i < 12; ++i) {
      const auto data = random_bytes(random, 1 + random() % 20'000);
      world_.run(node->write(random() % (kDiskBytes - 20'000), data));
    }
  };
  scatter();
  world_.run(create_snapshot(*node, "first"));
  scatter();
  world_.close(node);
  for (const char what : {'c', 'a', 'd'}) {
    crash_during(what, path);
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Layouts, SnapshotCrash,
    testing::Values("cluster_size=512", "cluster_size=64k", "cluster_size=16k,extended_l2=on",
                    "compat=0.10,cluster_size=4k", "cluster_size=1k,refcount_bits=2"),
    [](const auto& chosen) { return "layout" + std::to_string(chosen.index); });

}  // namespace
}  // namespace cairn
