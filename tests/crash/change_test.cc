// What a crash leaves behind while an image is amended, resized or emptied: every prefix of what
// was written, and any part of what was not flushed, is an image without corruption, and the guest
// sees the old or the new disk.
#include <cstring>
#include <functional>

#include "block/capabilities/amendable.h"
#include "block/capabilities/backing_link.h"
#include "block/capabilities/checkable.h"
#include "block/driver.h"
#include "crash/replay.h"

namespace cairn {
namespace {

using namespace testing_support;

struct Change {
  std::string name;
  std::string options;
  std::function<Task<void>(Node&)> run;
  bool empties = false;        // the content goes
  uint64_t kept = kDiskBytes;  // so much of it stays
};

Task<void> amend(Node& node, std::string options) {
  AmendRequest request;
  request.options = Options::parse_list(options);
  co_await amend_image(node, std::move(request));
}

class ChangeCrash : public testing::TestWithParam<Change> {};

TEST_P(ChangeCrash, LeavesTheOldDiskOrTheNewOne) {
  World world(1);
  Folder folder;
  const std::string path = folder.file("disk");
  world.create(path, "qcow2", kDiskBytes, GetParam().options);
  std::mt19937_64 random(5);
  std::vector<std::byte> content(kDiskBytes);
  {
    NodePtr node = world.open(path, "qcow2", true);
    for (int i = 0; i < 40; ++i) {
      const uint64_t length = 1 + random() % 30'000;
      const uint64_t offset = random() % (kDiskBytes - length);
      const auto bytes = random_bytes(random, length);
      const bool zero = i % 4 == 3;
      if (zero)
        world.run(node->write_zeroes(offset, length));
      else
        world.run(node->write(offset, bytes));
      for (uint64_t b = 0; b < length; ++b) content[offset + b] = zero ? std::byte{0} : bytes[b];
    }
    world.close(node);
  }
  const std::vector<std::byte> start = load_file(path);
  NodePtr node = open_recorded(world, "qcow2", {{"file", path}});
  world.run(GetParam().run(*node));
  world.run(node->close());
  const auto events = recorder_of(*node).events();
  ASSERT_GT(events.size(), 1u);

  const std::string crashed = folder.file("crashed");
  const int rounds = 200;
  for (int round = 0; round <= rounds; ++round) {
    const bool prefix = round % 2 == 0;
    const size_t count = prefix ? events.size() * static_cast<size_t>(round) / rounds
                                : random() % (events.size() + 1);
    store_file(crashed, replay(start, events, count, prefix ? nullptr : &random));
    NodePtr left = world.open(crashed, "qcow2", false);
    const CheckResult result = world.run(check_image(*left, {}));
    ASSERT_EQ(result.corruptions, 0u) << "after event " << count << " of " << events.size();
    std::vector<std::byte> seen(std::min(GetParam().kept, left->length()));
    world.run(left->read(0, seen));
    const bool same = std::memcmp(seen.data(), content.data(), seen.size()) == 0;
    const bool empty =
        std::all_of(seen.begin(), seen.end(), [](std::byte b) { return b == std::byte{0}; });
    ASSERT_TRUE(same || (GetParam().empties && empty)) << "after event " << count;
    world.run(left->close());
  }
}

INSTANTIATE_TEST_SUITE_P(
    Changes, ChangeCrash,
    testing::Values(
        Change{"wider_refcounts", "cluster_size=1k",
               [](Node& node) { return amend(node, "refcount_bits=64"); }},
        Change{"narrower_refcounts", "cluster_size=512,refcount_bits=64",
               [](Node& node) { return amend(node, "refcount_bits=1"); }},
        Change{"downgrade", "cluster_size=4k", [](Node& node) { return amend(node, "compat=v2"); }},
        Change{"upgrade", "cluster_size=4k,compat=v2",
               [](Node& node) { return amend(node, "compat=v3,lazy_refcounts=on"); }},
        Change{"grow", "cluster_size=512",
               [](Node& node) { return node.resize({.length = 40 << 20}); }},
        Change{"grow_preallocated", "cluster_size=1k",
               [](Node& node) {
                 return node.resize({.length = 3 << 20, .preallocation = Preallocation::kFalloc});
               }},
        Change{"shrink", "cluster_size=512",
               [](Node& node) { return node.resize({.length = 300 << 10}); }, false, 300 << 10},
        Change{"empty", "cluster_size=4k",
               [](Node& node) -> Task<void> { co_await make_empty(node); }, true}),
    [](const auto& chosen) { return chosen.param.name; });

}  // namespace
}  // namespace cairn
